import type { Clock } from "../async/index.ts";
import { type ShareLimits, Shares } from "./shares.ts";

/** A connection that counts for its owner, or a socket that leads to one. */
export interface OwnedConnection {
  /** SPIFFE ID; "" without TLS. Of one that we have dialled: whose call it was dialled for. */
  readonly owner: string;
  /** What several owners have together: it counts for each of them, and once for all. Undefined: it is this owner's alone. */
  readonly shared?: object;
  /** Nothing would be lost with it: it carries no call. */
  readonly isIdle: boolean;
  /** Since when, on the monotonic clock; of no meaning while it carries a call. */
  readonly idleSinceMs: number;
  /** Ends it now. */
  end(): void;
}

interface OwnedConnectionsOptions {
  readonly limits: ShareLimits;
  readonly clock: Pick<Clock, "monotonicMs">;
  readonly isManager: (owner: string) => boolean;
}

/**
 * Where half of all are taken, connections without a call for so long end. Stock clients refresh within that, or dial again: grpc-go
 * does so at the next call and its caller does not notice.
 */
const LONG_IDLE_MS = 300_000;

/** Connections of one kind, each of them in its owner's share. */
export class OwnedConnections {
  readonly #limits: ShareLimits;
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #isManager: (owner: string) => boolean;
  /** Oldest first. */
  readonly #open = new Map<string, Set<OwnedConnection>>();
  /** The first of each is the one that counts for all. */
  readonly #sharing = new Map<object, Set<OwnedConnection>>();
  readonly #shares: Shares;

  constructor({ limits, clock, isManager }: OwnedConnectionsOptions) {
    this.#limits = limits;
    this.#clock = clock;
    this.#isManager = isManager;
    this.#shares = new Shares(limits, isManager);
  }

  get count(): number {
    return [...this.#open.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /**
   * Takes a connection in. Where its owner, or all together, have as many as they may, the oldest one that carries no call
   * ends for it: the owner's own, or one of the owner that has most. False when all are in use.
   */
  add(connection: OwnedConnection): boolean {
    const { owner } = connection;
    this.#endLongIdle();
    while (!this.#shares.take(owner, 1, this.#sharersOf(connection).size === 0 ? 1 : 0)) {
      if (!this.#endIdle(this.#isFull(owner) ? this.#open.get(owner) : this.#largest())) return false;
    }
    const own = this.#open.get(owner) ?? new Set();
    this.#open.set(owner, own.add(connection));
    this.#sharing.set(connection.shared ?? connection, this.#sharersOf(connection).add(connection));
    return true;
  }

  /** It has ended; a second time does nothing. */
  remove(connection: OwnedConnection): void {
    const { owner } = connection;
    const own = this.#open.get(owner);
    if (!own?.delete(connection)) return;
    if (own.size === 0) this.#open.delete(owner);
    const sharers = this.#sharersOf(connection);
    const [counted] = sharers;
    sharers.delete(connection);
    const [next] = sharers;
    if (!next) this.#sharing.delete(connection.shared ?? connection);
    else if (counted === connection) this.#shares.pass(owner, next.owner, 1);
    this.#shares.give(owner, 1, next ? 0 : 1);
  }

  #sharersOf(connection: OwnedConnection): Set<OwnedConnection> {
    return this.#sharing.get(connection.shared ?? connection) ?? new Set();
  }

  /** Has as many connections as it may have, whatever the others have. */
  #isFull(owner: string): boolean {
    const { each, manager } = this.#limits;
    return this.#shares.usedBy(owner) >= (this.#isManager(owner) ? manager : each);
  }

  /** The manager's do not count here: they take no other's place. */
  #others(): [string, Set<OwnedConnection>][] {
    return [...this.#open].filter(([owner]) => !this.#isManager(owner));
  }

  #largest(): Set<OwnedConnection> | undefined {
    let largest: Set<OwnedConnection> | undefined;
    for (const [, open] of this.#others()) if (open.size > (largest?.size ?? 0)) largest = open;
    return largest;
  }

  #endLongIdle(): void {
    if (this.count < this.#limits.others / 2) return;
    const sinceMs = this.#clock.monotonicMs() - LONG_IDLE_MS;
    const all = this.#others().flatMap(([, open]) => [...open]);
    for (const one of all) if (one.isIdle && one.idleSinceMs <= sinceMs) this.#end(one);
  }

  #endIdle(open: Set<OwnedConnection> | undefined): boolean {
    const idle = open && [...open].find(({ isIdle }) => isIdle);
    if (idle) this.#end(idle);
    return idle !== undefined;
  }

  /** It counts no more from now on: its own end comes later, and makes no room for another. */
  #end(connection: OwnedConnection): void {
    this.remove(connection);
    connection.end();
  }
}
