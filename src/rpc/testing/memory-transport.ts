import { startDeadline } from "../../async/index.ts";
import type { PeerIdentity, TlsIdentity } from "../connection.ts";
import { RpcError } from "../status.ts";
import { parseTarget } from "../target.ts";
import type { ClientConnection, DialOptions, Listener, ListenOptions, Transport } from "../transport.ts";
import { MemoryEnd } from "./memory-connection.ts";
import type { Delays } from "./memory-lane.ts";

/**
 * A network within the process: addresses are names, and what goes over it takes a time that the randomness draws. What one end sends
 * on a connection keeps its order; nothing else does. Peers judge each other's certificates as they do beneath TLS, but nothing proves that
 * a certificate is its owner's.
 */
export class MemoryTransport implements Transport {
  readonly #delays: Delays;
  readonly #listeners = new Map<string, ListenOptions>();
  #dialled = 0;

  constructor(delays: Delays) {
    this.#delays = delays;
  }

  async listen(options: ListenOptions): Promise<Listener> {
    const { url } = options;
    parseTarget(url);
    if (this.#listeners.has(url))
      throw new RpcError("UNAVAILABLE", `Cannot listen on ${url}: another process listens there`);
    this.#listeners.set(url, options);
    return {
      url,
      openSocket() {
        throw new Error(`Cannot open the socket of ${url}: there is none in memory`);
      },
      close: () => {
        if (this.#listeners.get(url) === options) this.#listeners.delete(url);
      },
    };
  }

  isListening(url: string): boolean {
    return this.#listeners.has(url);
  }

  identify(target: string): string {
    return target;
  }

  async dial({ target, tls, clock, timeoutMs, signal }: DialOptions): Promise<ClientConnection> {
    const hasFds = parseTarget(target).kind === "unix";
    const deadline = startDeadline(clock, timeoutMs, { what: "it", parent: signal });
    let near: MemoryEnd | undefined;
    try {
      await this.#pass(deadline.signal);
      near = this.#connect(target, tls, hasFds);
      await this.#pass(deadline.signal);
      near.closed.throwIfAborted();
      return near;
    } catch (error) {
      near?.cut();
      signal.throwIfAborted();
      throw new RpcError("UNAVAILABLE", `Cannot connect to ${target}: ${(error as Error).message}`, { cause: error });
    } finally {
      deadline.end();
    }
  }

  #connect(target: string, tls: TlsIdentity | undefined, hasFds: boolean): MemoryEnd {
    const server = this.#listeners.get(target);
    if (!server) throw new Error("no process listens there");
    const ends = meet(server.tls, tls);
    const remote = `${target} (memory ${this.#dialled++})`;
    const near = new MemoryEnd({ ...ends.client, remote, hasFds }, this.#delays);
    const far = new MemoryEnd({ ...ends.server, remote, hasFds }, this.#delays);
    near.join(far);
    far.taker = server.connected(far);
    if (far.taker) far.taker.opened();
    else far.cut();
    return near;
  }

  async #pass(signal: AbortSignal): Promise<void> {
    const { clock, random, longestMs } = this.#delays;
    await clock.sleep(random.fraction() * longestMs, signal);
  }
}

/** Both sides judge what the other shows. */
function meet(server: TlsIdentity | undefined, client: TlsIdentity | undefined) {
  if (!server || !client) {
    if (server) throw new Error("the peer wants TLS");
    if (client) throw new Error("the peer does not speak TLS");
    const plain = { peer: undefined, shown: undefined };
    return { client: plain, server: plain };
  }
  const [theirs, ours] = [server.credentials(), client.credentials()];
  return {
    server: { peer: judge(server, ours.certChainPem), shown: theirs },
    client: { peer: judge(client, theirs.certChainPem), shown: ours },
  };
}

function judge(identity: TlsIdentity, chainPem: string): PeerIdentity {
  const blocks = chainPem.matchAll(/-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----/g);
  return identity.verifyPeer([...blocks].map(([, base64 = ""]) => Buffer.from(base64, "base64")));
}
