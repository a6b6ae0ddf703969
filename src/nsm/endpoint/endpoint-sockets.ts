import { type Clock, guarded, startDeadline, type Timer } from "../../async/index.ts";
import { DialRefused, type OwnedConnection } from "../../rpc/index.ts";
import { NsmError, textOf } from "../fault.ts";
import { type InodeUrl, isInodeUrl, parseInodeUrl } from "../mechanism/inode-url.ts";
import type { OwnedFd, PassedFds } from "../peers.ts";

/** A socket is sent before the answer that names it: it is here, or it will not come. */
const WAIT_LIMIT_MS = 1_000;

/** Of an owner's share, what one search may keep for candidates: most are never dialled, and the owner has other Requests. */
const PART_OF_SEARCH = 1 / 4;

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
  readonly url: string;
  readonly fd: OwnedFd;
  /** By owner: each that uses it, or else the last that has. */
  readonly charges: Map<string, Charge>;
  closing: Timer | undefined;
}

/** That it is in the share of one owner. */
interface Charge extends OwnedConnection {
  uses: number;
  idleSinceMs: number;
}

/** What each owner may have of them: a peer may name as many endpoints as it likes, and each is a descriptor. */
export interface SocketShares {
  /** So many one owner may have. */
  readonly each: number;
  /** May end idle ones for it. False where there is no room. */
  add(socket: OwnedConnection): boolean;
  remove(socket: OwnedConnection): void;
  /** No further call goes over a connection that is kept to that target. */
  leave(target: string): void;
}

const unbounded: SocketShares = { each: Number.POSITIVE_INFINITY, add: () => true, remove() {}, leave() {} };

/** For whom a socket is taken hold of, and until when. */
interface SocketSearch {
  /** In whose share it is as long as it is used. */
  readonly owner: string;
  readonly signal: AbortSignal;
}

/** The recvfd of the original's registry client: descriptors of endpoint sockets, shared, bounded by owner, and closed when unused (W25). */
export class EndpointSockets {
  readonly #clock: Clock;
  readonly #lingerMs: number;
  readonly #shares: SocketShares;
  readonly #held = new Map<string, HeldSocket>();

  /**
   * `lingerMs`: how long an unused descriptor stays open. It must outlive the caller's kept connection to the target: the
   * target is a descriptor number, and a number that is used again would lead to the earlier endpoint. One that is closed before,
   * because its owner or all have as many as they may, ends that connection.
   */
  constructor(clock: Clock, lingerMs: number, shares = unbounded) {
    this.#clock = clock;
    this.#lingerMs = lingerMs;
    this.#shares = shares;
  }

  /** So many sockets are for one search. */
  get eachSearch(): number {
    return Math.max(1, Math.floor(this.#shares.each * PART_OF_SEARCH));
  }

  get heldCount(): number {
    return this.#held.size;
  }

  /**
   * Takes hold of an endpoint's socket; the descriptor of an `inode://` URL came over the registry's connection.
   * @throws {NsmError} bad-value, registry; {DialRefused} when the owner has as many as it may.
   */
  async acquire(url: string, fds: PassedFds | undefined, { owner, signal }: SocketSearch): Promise<EndpointSocket> {
    if (!isInodeUrl(url)) return { url, target: url, isLocal: url.startsWith("unix:"), release: () => {} };
    const file = parseInodeUrl(url, "the endpoint's URL");
    const held = this.#held.get(url) ?? this.#keep(url, await this.#receive(file, fds, signal));
    const socket = this.#hold(held, owner);
    fds?.release(file);
    return socket;
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
    for (const held of [...this.#held.values()]) this.#close(held);
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
    if (known) {
      fd.close();
      return known;
    }
    const held: HeldSocket = { url, fd, charges: new Map(), closing: undefined };
    this.#held.set(url, held);
    return held;
  }

  /** @throws {DialRefused} */
  #hold(held: HeldSocket, owner: string): EndpointSocket {
    const charge = held.charges.get(owner) ?? this.#charge(held, owner);
    charge.uses += 1;
    held.closing?.cancel();
    // Its last user pays no more for what another one uses now.
    for (const other of held.charges.values()) if (other.isIdle) this.#discharge(held, other);
    let holding = true;
    return {
      url: held.url,
      target: targetOf(held),
      isLocal: true,
      release: () => {
        if (holding) this.#drop(held, charge);
        holding = false;
      },
    };
  }

  /** @throws {DialRefused} */
  #charge(held: HeldSocket, owner: string): Charge {
    const charge: Charge = {
      ...{ owner, shared: held, uses: 0, idleSinceMs: this.#clock.monotonicMs() },
      get isIdle() {
        return charge.uses === 0;
      },
      end: () => this.#discharge(held, charge),
    };
    // Before there is room for it: an unused charge of this very socket may end for that, and the socket must stay.
    held.charges.set(owner, charge);
    if (this.#shares.add(charge)) return charge;
    this.#discharge(held, charge);
    const whose = owner || "a caller without identity";
    throw new DialRefused(
      `Cannot keep the socket ${held.url} of an endpoint: ${whose} has as many as it may; try again when one of its calls has ended`,
    );
  }

  #discharge(held: HeldSocket, charge: Charge): void {
    held.charges.delete(charge.owner);
    this.#shares.remove(charge);
    if (held.charges.size === 0) this.#close(held);
  }

  #drop(held: HeldSocket, charge: Charge): void {
    charge.uses -= 1;
    if (charge.uses > 0 || this.#held.get(held.url) !== held) return;
    if (held.charges.size > 1) {
      this.#discharge(held, charge);
      return;
    }
    charge.idleSinceMs = this.#clock.monotonicMs();
    held.closing = this.#clock.after(
      this.#lingerMs,
      guarded("timer", () => this.#close(held)),
    );
  }

  #close(held: HeldSocket): void {
    held.closing?.cancel();
    this.#held.delete(held.url);
    for (const charge of held.charges.values()) this.#shares.remove(charge);
    // As long as we have the descriptor, its inode is no other socket's: a connection that is kept to it must not outlive that.
    this.#shares.leave(targetOf(held));
    held.fd.close();
  }
}

function targetOf({ fd }: HeldSocket): string {
  return `unix:///proc/self/fd/${fd.number}`;
}
