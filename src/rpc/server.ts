import type { Clock } from "../async/index.ts";
import type { Fd } from "../kernel/index.ts";
import { type Log, rareWarnings } from "../telemetry/index.ts";
import type { TlsIdentity } from "./connection.ts";
import type { RpcHandler } from "./handler.ts";
import type { RpcHealth } from "./health.ts";
import { http2Transport } from "./http2/transport.ts";
import { PeerLimits } from "./peer-limits.ts";
import { Renewals } from "./renewals.ts";
import { defaultLimits, type RpcLimits } from "./rpc-limits.ts";
import { ServedConnection, type ServedContext } from "./served-connection.ts";
import type { ServerCall } from "./server-call.ts";
import { RpcError } from "./status.ts";
import type { AcceptOptions, CallTaker, ServerConnection, Transport } from "./transport.ts";

/** What a server is, wherever its connections come from. */
export interface ServerOptions {
  /** Without it the server speaks plain HTTP/2 to any process that can connect. */
  readonly tls?: TlsIdentity;
  readonly handlers: readonly RpcHandler[];
  /** Serves grpc.health.v1 too. Other servers may share it: who made it says when nothing serves any more. */
  readonly health?: RpcHealth;
  readonly log: Log;
  readonly clock: Clock;
  readonly limits?: Partial<RpcLimits>;
  /** What peers may have, where that is shared with others than this server's connections. Made of `limits` by default. */
  readonly owners?: PeerLimits;
}

export interface ServeOptions extends ServerOptions {
  /** `unix:///path` or `tcp://host:port`; port 0 lets the system choose. */
  readonly url: string;
  /** Permissions of a unix socket; 0o770 by default. */
  readonly socketMode?: number;
  /** How calls travel; HTTP/2 on sockets by default. */
  readonly transport?: Transport | undefined;
}

/** A server that listens. */
export interface RpcServer {
  /** The address that peers can dial, with the real port. */
  readonly url: string;
  /** Connections whose handshake is done. */
  readonly connectionCount: number;
  /** See `Listener`. */
  openSocket(): Fd;
  /**
   * Takes no new call, lets unary calls end within `graceMs`, then ends streams with UNAVAILABLE and closes every
   * connection. May be called again with a shorter time.
   */
  stop(graceMs: number): Promise<void>;
}

/**
 * Serves gRPC at an address.
 * @throws {RpcError} UNAVAILABLE when the address cannot be listened on, INVALID_ARGUMENT when it is no address.
 */
export async function serveRpc(options: ServeOptions): Promise<RpcServer> {
  const { url, socketMode = 0o770, transport = http2Transport } = options;
  const server = new Server(options);
  const listener = await transport.listen({ ...server.acceptOptions, url, socketMode });
  return {
    url: listener.url,
    get connectionCount() {
      return server.connectionCount;
    },
    openSocket: () => listener.openSocket(),
    async stop(graceMs) {
      listener.close();
      await server.stop(graceMs);
    },
  };
}

/** Serves the connections that a transport accepts for it. */
export class Server {
  readonly acceptOptions: AcceptOptions;
  readonly #options: ServerOptions;
  readonly #context: ServedContext;
  readonly #open = new Set<ServedConnection>();
  readonly #renewals = new Renewals();
  readonly #stopWatching: (() => void) | undefined;
  readonly #warn: ReturnType<typeof rareWarnings>;

  constructor(options: ServerOptions) {
    const { tls, clock, log, health } = options;
    const limits = { ...defaultLimits, ...options.limits };
    const handlers = [...options.handlers, ...(health?.handlers() ?? [])];
    const byPath = new Map(handlers.map((handler) => [handler.path, handler]));
    this.#options = options;
    this.#warn = rareWarnings(options.log, clock);
    const { owners = new PeerLimits({ limits, clock }) } = options;
    this.#context = { handlers: byPath, limits, owners, clock, log };
    const { unknownDescriptors } = owners;
    const callsAtOnce = (owner: string) => owners.callsAtOnce(owner);
    const connected = (connection: ServerConnection) => this.#connected(connection);
    this.acceptOptions = { tls, limits, callsAtOnce, unknownDescriptors, clock, log, connected };
    // What we issue over a connection ends with the certificate that was shown there: peers are to come back and see the new
    // one. Their calls under way continue.
    this.#stopWatching = tls?.onRotate(() => {
      for (const served of this.#open) served.sayFarewell();
    });
  }

  get connectionCount(): number {
    return this.#open.size;
  }

  /** Undefined where there is no room for a connection of this owner. */
  #connected(transport: ServerConnection): CallTaker | undefined {
    const served = new ServedConnection(transport, this.#context, this.#renewals.opened(transport.peer));
    void served.closed.then(() => this.#open.delete(served));
    const hasRoom = this.#context.owners.add(served);
    if (!hasRoom) {
      const facts = { remote: transport.remote, peer: served.owner, open: this.#open.size };
      this.#warn("rpc-connections-refused", facts);
    }
    return hasRoom ? { opened: () => this.#opened(served), call: (stream) => served.serve(stream) } : undefined;
  }

  #opened(served: ServedConnection): void {
    const { tls, log } = this.#options;
    const { id, remote, peer, shown } = served.connection;
    this.#open.add(served);
    if (tls?.credentials().certChainPem !== shown?.certChainPem) served.sayFarewell(); // ours was renewed meanwhile
    log.debug("rpc-connection-open", { connection: id, remote, peer: peer?.spiffeId });
  }

  /** Ends every connection that is open, after its calls. The transport has to accept no more by then. */
  async stop(graceMs: number): Promise<void> {
    this.#stopWatching?.();
    for (const served of this.#open) served.sayFarewell();
    const calls = () => [...this.#open].flatMap((served) => [...served.calls]);
    const unary = calls().filter((call) => !call.isStreaming);
    await this.#within(graceMs, unary);
    const left = calls();
    for (const call of left) call.end(new RpcError("UNAVAILABLE", "the server is stopping"));
    await this.#within(Math.min(graceMs, FAREWELL_MS), left);
    const open = [...this.#open];
    for (const served of open) served.end();
    await Promise.all(open.map(({ closed }) => closed));
  }

  /** Waits for the calls, and no longer than this. */
  async #within(limitMs: number, calls: readonly ServerCall[]): Promise<void> {
    const bound = new AbortController();
    const late = this.#options.clock.sleep(limitMs, bound.signal).catch(() => {});
    await Promise.race([Promise.all(calls.map(({ done }) => done)), late]);
    bound.abort();
  }
}

/** Time for the last statuses to leave before connections are cut. */
const FAREWELL_MS = 200;
