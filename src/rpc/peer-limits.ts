// What one peer may have of a server: connections, calls under way, bytes of requests whose rest is awaited. A peer is its SPIFFE ID;
// all that have none, on a socket without TLS, are one.
import type { RpcLimits } from "./rpc-limits.ts";

/** A connection that counts for its owner. */
export interface OwnedConnection {
  /** SPIFFE ID; "" without TLS. */
  readonly owner: string;
  /** Nothing would be lost with it: it carries no call. */
  readonly isIdle: boolean;
  /** Ends it now. */
  end(): void;
}

/** Bytes that may be held at once; what a share takes its parent takes too. */
export class ByteBudget {
  readonly #parent: ByteBudget | undefined;
  #leftBytes: number;

  constructor(bytes: number, parent?: ByteBudget) {
    this.#leftBytes = bytes;
    this.#parent = parent;
  }

  /** Takes them all, or none and answers false. */
  take(bytes: number): boolean {
    if (bytes > this.#leftBytes || this.#parent?.take(bytes) === false) return false;
    this.#leftBytes -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#leftBytes += bytes;
    this.#parent?.give(bytes);
  }
}

/** Requests of full size that may be half received at once on one connection. */
const MESSAGES_IN_ARRIVAL = 4;

interface Share {
  /** Oldest first. */
  readonly connections: Set<OwnedConnection>;
  readonly arrival: ByteBudget;
  calls: number;
}

/** Every owner of the connections of one server. */
export class PeerLimits {
  readonly #limits: RpcLimits;
  readonly #shares = new Map<string, Share>();
  readonly #arrival: ByteBudget;
  #connections = 0;

  constructor(limits: RpcLimits) {
    this.#limits = limits;
    this.#arrival = new ByteBudget(limits.maxArrivalBytes);
  }

  get connectionCount(): number {
    return this.#connections;
  }

  /**
   * Takes a connection in. Where its owner, or the server, has as many as it may, the oldest one that carries no call
   * ends for it: the owner's own, or one of the owner that has most. False when all are in use.
   */
  add(connection: OwnedConnection): boolean {
    const { owner } = connection;
    const own = this.#shares.get(owner);
    const isOverOwn = owner !== "" && own !== undefined && own.connections.size >= this.#limits.maxConnectionsPerOwner;
    const isFull = this.#connections >= this.#limits.maxConnections;
    const hasRoom = isOverOwn ? this.#endIdle(own) : !isFull || this.#endIdle(this.#largest());
    if (!hasRoom) return false;
    this.#shareOf(owner).connections.add(connection);
    this.#connections += 1;
    return true;
  }

  /** It has ended; a second time does nothing. */
  remove(connection: OwnedConnection): void {
    const share = this.#shares.get(connection.owner);
    if (!share?.connections.delete(connection)) return;
    this.#connections -= 1;
    this.#forgetEmpty(connection.owner, share);
  }

  /** Begins a call; false when the owner has as many as it may. */
  beginCall(owner: string): boolean {
    const share = this.#shareOf(owner);
    if (share.calls >= this.#limits.maxCallsPerOwner) return false;
    share.calls += 1;
    return true;
  }

  endCall(owner: string): void {
    const share = this.#shareOf(owner);
    share.calls -= 1;
    this.#forgetEmpty(owner, share);
  }

  /** For a connection: bytes of half-sent requests count for it, for its owner and for the whole server. */
  budgetOf(owner: string): ByteBudget {
    return new ByteBudget(MESSAGES_IN_ARRIVAL * this.#limits.maxMessageBytes, this.#shareOf(owner).arrival);
  }

  #shareOf(owner: string): Share {
    const known = this.#shares.get(owner);
    if (known) return known;
    const arrival = new ByteBudget(this.#limits.maxArrivalBytesPerOwner, this.#arrival);
    const share: Share = { connections: new Set(), arrival, calls: 0 };
    this.#shares.set(owner, share);
    return share;
  }

  #largest(): Share | undefined {
    let largest: Share | undefined;
    for (const share of this.#shares.values()) {
      if (share.connections.size > (largest?.connections.size ?? 0)) largest = share;
    }
    return largest;
  }

  /** It counts no more from now on: its own end comes later, and makes no room for another. */
  #endIdle(share: Share | undefined): boolean {
    const idle = share && [...share.connections].find(({ isIdle }) => isIdle);
    if (!idle) return false;
    this.remove(idle);
    idle.end();
    return true;
  }

  #forgetEmpty(owner: string, share: Share): void {
    if (share.connections.size === 0 && share.calls <= 0) this.#shares.delete(owner);
  }
}
