import { type Clock, guarded, startDeadline, type Timer } from "../../async/index.ts";
import { NsmError, textOf } from "../fault.ts";
import { type InodeUrl, isInodeUrl, parseInodeUrl } from "../mechanism/inode-url.ts";
import type { OwnedFd, PassedFds } from "../peers.ts";

/** A socket is sent before the answer that names it: it is here, or it will not come. */
const WAIT_LIMIT_MS = 1_000;

/** Where an endpoint is reached. */
export interface EndpointSocket {
  /** The URL that the registry gave. */
  readonly url: string;
  /** What to dial. The same endpoint has the same target as long as it is held. */
  readonly target: string;
  /** On this machine: mechanisms of class LOCAL are offered to it, REMOTE ones to any other. */
  readonly isLocal: boolean;
  /** Not needed any more by this holder; safe to call twice. */
  release(): void;
}

interface HeldSocket {
  readonly fd: OwnedFd;
  users: number;
  closing: Timer | undefined;
}

/** The recvfd of the original's registry client: descriptors of endpoint sockets, shared, and closed when unused (W25). */
export class EndpointSockets {
  readonly #clock: Clock;
  readonly #lingerMs: number;
  readonly #held = new Map<string, HeldSocket>();

  /**
   * `lingerMs`: how long an unused descriptor stays open. It must outlive the caller's kept connection to the target: the
   * target is a descriptor number, and a number that is used again would lead to the earlier endpoint.
   */
  constructor(clock: Clock, lingerMs: number) {
    this.#clock = clock;
    this.#lingerMs = lingerMs;
  }

  get heldCount(): number {
    return this.#held.size;
  }

  /**
   * Takes hold of an endpoint's socket; the descriptor of an `inode://` URL came over the registry's connection.
   * @throws {NsmError} bad-value, registry.
   */
  async acquire(url: string, fds: PassedFds | undefined, signal: AbortSignal): Promise<EndpointSocket> {
    if (!isInodeUrl(url)) return { url, target: url, isLocal: url.startsWith("unix:"), release: () => {} };
    const file = parseInodeUrl(url, "the endpoint's URL");
    const held = this.#held.get(url) ?? this.#keep(url, await this.#receive(file, fds, signal));
    fds?.release(file);
    return this.#hold(url, held);
  }

  /** The descriptor that came with this URL is not needed. A URL that cannot be read came with none. */
  disclaim(url: string, fds: PassedFds): void {
    let file: InodeUrl;
    try {
      file = parseInodeUrl(url, "the endpoint's URL");
    } catch {
      return;
    }
    fds.release(file);
  }

  /** Closes everything at once, used or not: for the end of the process. */
  stop(): void {
    for (const held of this.#held.values()) {
      held.closing?.cancel();
      held.fd.close();
    }
    this.#held.clear();
  }

  async #receive(file: InodeUrl, fds: PassedFds | undefined, signal: AbortSignal): Promise<OwnedFd> {
    const problem = `${file.text} came over a connection that carries no files`;
    if (!fds) throw new NsmError({ kind: "registry", problem });
    const deadline = startDeadline(this.#clock, WAIT_LIMIT_MS, { what: `waiting for ${file.text}`, parent: signal });
    try {
      return await fds.receive(file, deadline.signal);
    } catch (error) {
      signal.throwIfAborted();
      throw new NsmError({ kind: "registry", problem: `the socket ${file.text} did not arrive: ${textOf(error)}` });
    } finally {
      deadline.end();
    }
  }

  #keep(url: string, fd: OwnedFd): HeldSocket {
    const known = this.#held.get(url);
    // Another search for the same endpoint was quicker.
    if (known) fd.close();
    const held = known ?? { fd, users: 0, closing: undefined };
    this.#held.set(url, held);
    return held;
  }

  #hold(url: string, held: HeldSocket): EndpointSocket {
    held.users += 1;
    held.closing?.cancel();
    let holding = true;
    return {
      url,
      target: `unix:///proc/self/fd/${held.fd.number}`,
      isLocal: true,
      release: () => {
        if (holding) this.#drop(url, held);
        holding = false;
      },
    };
  }

  #drop(url: string, held: HeldSocket): void {
    held.users -= 1;
    if (held.users > 0) return;
    const close = guarded("timer", () => {
      this.#held.delete(url);
      held.fd.close();
    });
    held.closing = this.#clock.after(this.#lingerMs, close);
  }
}
