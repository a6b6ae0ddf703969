import { type Connection, ConnectionEventType } from "../../gen/connection_pb.ts";

/** What waits for one subscriber, as `sizeOf` counts it; beyond it only the latest of each connection is kept. */
const WAITING_BYTES = 256 * 1024;

/** An event that a subscriber has not read. */
export interface Waiting {
  /** By what the connection is known to the hub. */
  readonly key: string;
  readonly type: ConnectionEventType;
  readonly connection: Connection;
  readonly bytes: number;
  /** The end of an id alone: the connection has another one now. */
  readonly isOfFormerId?: boolean;
}

/**
 * The events that wait for one subscriber: each change for one that keeps up. One that is behind needs the state, not the history: one
 * event for each connection, the order of last changes kept, until it has read them all.
 */
export class WaitingEvents {
  /** By connection while the subscriber is behind, before that by a number. */
  readonly #events = new Map<string | number, Waiting>();
  #count = 0;
  #bytes = 0;
  #isBehind = false;
  /** The latest that was pushed of each connection. */
  readonly #latest: Map<string, Connection>;
  /** Connections that the subscriber has read of, and not yet the end of: the id that it has read. */
  readonly #known: Map<string, string>;

  /** `established`: what the subscriber hears first. */
  constructor(established: readonly Pick<Waiting, "key" | "connection">[]) {
    this.#latest = new Map(established.map(({ key, connection }) => [key, connection]));
    this.#known = new Map(established.map(({ key, connection }) => [key, connection.id]));
  }

  /** What was pushed of a connection last, unless that was its end. */
  latest(key: string): Connection | undefined {
    return this.#latest.get(key);
  }

  /** The same connection object as before is no news. `former`: what has ended with this event, where the connection continues by another id. */
  push(event: Waiting, former?: Pick<Waiting, "connection" | "bytes">): void {
    const { key, type, connection } = event;
    const isHeard = this.#latest.get(key) === former?.connection;
    if (type === ConnectionEventType.DELETE) this.#latest.delete(key);
    else if (this.#latest.get(key) === connection) return;
    else this.#latest.set(key, connection);
    this.#put(event);
    if (former && isHeard) this.#put({ ...former, key, type: ConnectionEventType.DELETE, isOfFormerId: true });
    if (!this.#isBehind && this.#bytes > WAITING_BYTES) this.#fallBehind();
  }

  /** The end of a connection that the subscriber does not hear of. */
  forget(key: string): void {
    this.#latest.delete(key);
    this.#known.delete(key);
  }

  next(): Waiting | undefined {
    const [first] = this.#events;
    if (!first) return undefined;
    const [at, event] = first;
    this.#take(at);
    if (this.#events.size === 0) this.#isBehind = false;
    const { key, type, connection, isOfFormerId } = event;
    if (type !== ConnectionEventType.DELETE) this.#known.set(key, connection.id);
    else if (!isOfFormerId || this.#known.get(key) === connection.id) this.#known.delete(key);
    return event;
  }

  #put(event: Waiting): void {
    const { key, type, connection, bytes, isOfFormerId = false } = event;
    if (this.#isBehind && isOfFormerId) {
      // Of the ids that it has had since, the subscriber has read none.
      if (this.#known.get(key) !== connection.id) return;
      this.#known.delete(key);
    } else if (this.#isBehind) {
      this.#take(key);
      // The subscriber has not read that there was one: connections that come and go would pile up.
      if (type === ConnectionEventType.DELETE && !this.#known.has(key)) return;
    }
    this.#count += 1;
    this.#events.set(this.#isBehind && !isOfFormerId ? key : this.#count, event);
    this.#bytes += bytes;
  }

  #take(at: string | number): void {
    this.#bytes -= this.#events.get(at)?.bytes ?? 0;
    this.#events.delete(at);
  }

  #fallBehind(): void {
    const all = [...this.#events.values()];
    this.#events.clear();
    this.#bytes = 0;
    this.#isBehind = true;
    for (const event of all) this.#put(event);
  }
}
