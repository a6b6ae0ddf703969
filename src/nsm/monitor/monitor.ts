import { create, equals } from "@bufbuild/protobuf";
import { guarded } from "../../async/index.ts";
import {
  type Connection,
  type ConnectionEvent,
  ConnectionEventSchema,
  ConnectionEventType,
  ConnectionSchema,
  type MonitorScopeSelector,
} from "../../gen/connection_pb.ts";
import { withoutTokens } from "../path.ts";
import type { Owner } from "../permission/connection-owner.ts";
import { sizeOf } from "../permission/quota.ts";
import { isSelected } from "./monitor-selector.ts";
import { type Waiting, WaitingEvents } from "./waiting-events.ts";

/** What one subscriber wants, and may, see. */
interface Subscription {
  readonly selector: MonitorScopeSelector;
  /** May the subscriber see what this owner made? Checked at each event: the manager can change. */
  readonly sees: (owner: Owner) => boolean;
  /** The stream's end: the subscriber is forgotten at once. */
  readonly signal: AbortSignal;
}

interface Shown {
  /** By what the connection is known here: two owners can have one id. */
  readonly key: string;
  readonly owner: Owner;
  readonly connection: Connection;
}

/**
 * The original's monitor: notifies peers of the connections they made, first of those that there are, then of each change
 * (nsm-protocol §2.7).
 */
export class MonitorHub {
  readonly #shown = new Map<string, Shown>();
  readonly #subscribers = new Set<Subscriber>();

  get subscriberCount(): number {
    return this.#subscribers.size;
  }

  /** The connection is new, or changed: remembered for later subscribers. `connection.id` is our own. */
  update(owner: Owner, connection: Connection, key = connection.id): void {
    const before = this.#shown.get(key)?.connection;
    const now = withoutTokens(connection);
    // One that has not changed stays the same object: no news for those who heard of it, and no memory.
    const shown = { key, owner, connection: before && equals(ConnectionSchema, before, now) ? before : now };
    this.#shown.set(key, shown);
    const isMoved = before !== undefined && before.id !== now.id && !this.#isShown(before.id);
    this.#publish(ConnectionEventType.UPDATE, shown, isMoved ? before : undefined);
  }

  /** The connection is gone. No event is sent for one that was never shown. */
  remove(key: string): void {
    const shown = this.#shown.get(key);
    if (!shown) return;
    this.#shown.delete(key);
    this.#publish(ConnectionEventType.DELETE, shown);
  }

  /** The connection as its subscribers see it, without tokens. */
  shown(key: string): Connection | undefined {
    return this.#shown.get(key)?.connection;
  }

  /** First one event with all established connections, also when there are none; then every change until the signal or `stop`. */
  subscribe(subscription: Subscription): AsyncIterable<ConnectionEvent> {
    const established = [...this.#shown.values()].filter((shown) => wants(subscription, shown));
    const subscriber = new Subscriber(subscription, established, () => this.#subscribers.delete(subscriber));
    // Of two clients' connections with one id the manager sees the older one: the other may be an attempt on it.
    const connections = Object.fromEntries(
      [...established].reverse().map(({ connection }) => [connection.id, connection]),
    );
    const first = create(ConnectionEventSchema, { type: ConnectionEventType.INITIAL_STATE_TRANSFER, connections });
    this.#subscribers.add(subscriber);
    subscriber.endOn(subscription.signal);
    return subscriber.events(first);
  }

  /** Ends every stream without an error, as a server that shuts down does. */
  stop(): void {
    for (const subscriber of [...this.#subscribers]) subscriber.end();
  }

  /** Of another client's connection perhaps. */
  #isShown(id: string): boolean {
    return [...this.#shown.values()].some(({ connection }) => connection.id === id);
  }

  #publish(type: ConnectionEventType, shown: Shown, before?: Connection): void {
    if (this.#subscribers.size === 0) return;
    const bytes = sizeOf(shown.connection);
    const former = before && { connection: before, bytes: sizeOf(before) };
    for (const subscriber of this.#subscribers) subscriber.hear(shown, { type, bytes, former });
  }
}

function wants({ selector, sees }: Subscription, { owner, connection }: Shown): boolean {
  return sees(owner) && isSelected(selector, connection);
}

/** The connection as it was shown by its former id. */
type Former = Pick<Waiting, "connection" | "bytes"> | undefined;

class Subscriber {
  readonly #subscription: Subscription;
  readonly #forget: () => void;
  readonly #waiting: WaitingEvents;
  #ended = false;
  #wake: () => void = () => {};

  constructor(subscription: Subscription, established: readonly Shown[], forget: () => void) {
    this.#subscription = subscription;
    this.#waiting = new WaitingEvents(established);
    this.#forget = forget;
  }

  /**
   * A connection that continues by another path has another id. Who watches ids hears the end of the former one. Who watches a path segment takes
   * an end for that of its client's connection, and heals what lives (sdk: common/heal/client_filter.go): it hears the end of what it knows when
   * the connection ends, by whatever path.
   */
  hear(shown: Shown, { type, bytes, former }: Pick<Waiting, "type" | "bytes"> & { readonly former: Former }): void {
    const { key, connection } = shown;
    const { selector, sees } = this.#subscription;
    const known = sees(shown.owner) ? this.#waiting.latest(key) : undefined;
    if (wants(this.#subscription, shown)) {
      const isById = selector.pathSegments.length === 0;
      this.#waiting.push({ key, connection, type, bytes }, isById ? former : undefined);
    } else if (type === ConnectionEventType.DELETE) {
      if (known) this.#waiting.push({ key, connection: known, type, bytes: sizeOf(known) });
      else this.#waiting.forget(key);
    }
    this.#wake();
  }

  endOn(signal: AbortSignal): void {
    if (signal.aborted) this.end();
    signal.addEventListener(
      "abort",
      guarded("abort", () => this.end()),
      { once: true },
    );
  }

  end(): void {
    this.#ended = true;
    this.#forget();
    this.#wake();
  }

  async *events(first: ConnectionEvent): AsyncGenerator<ConnectionEvent> {
    try {
      yield first;
      while (!this.#ended) {
        const next = this.#waiting.next();
        if (next) {
          const { type, connection } = next;
          yield create(ConnectionEventSchema, { type, connections: { [connection.id]: connection } });
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.end();
    }
  }
}
