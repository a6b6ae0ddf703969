import { create } from "@bufbuild/protobuf";
import { guarded } from "../../async/index.ts";
import {
  type Connection,
  type ConnectionEvent,
  ConnectionEventSchema,
  ConnectionEventType,
  type MonitorScopeSelector,
} from "../../gen/connection_pb.ts";
import { withoutTokens } from "../path.ts";
import type { Owner } from "../permission/connection-owner.ts";
import { isSelected } from "./monitor-selector.ts";

/** Events that wait for one subscriber; beyond it only the latest of each connection is kept. */
const QUEUE_LIMIT = 256;

/** What one subscriber wants, and may, see. */
interface Subscription {
  readonly selector: MonitorScopeSelector;
  /** May the subscriber see what this owner made? Checked at each event: the manager can change. */
  readonly sees: (owner: Owner) => boolean;
  /** The stream's end: the subscriber is forgotten at once. */
  readonly signal: AbortSignal;
}

interface Shown {
  readonly owner: Owner;
  readonly connection: Connection;
}

interface Waiting {
  readonly type: ConnectionEventType;
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
  update(owner: Owner, connection: Connection): void {
    const shown = { owner, connection: withoutTokens(connection) };
    this.#shown.set(connection.id, shown);
    this.#publish(ConnectionEventType.UPDATE, shown);
  }

  /** The connection is gone. No event is sent for one that was never shown. */
  remove(id: string): void {
    const shown = this.#shown.get(id);
    if (!shown) return;
    this.#shown.delete(id);
    this.#publish(ConnectionEventType.DELETE, shown);
  }

  /** The connection as its subscribers see it, without tokens. */
  shown(id: string): Connection | undefined {
    return this.#shown.get(id)?.connection;
  }

  /** First one event with all established connections, also when there are none; then every change until the signal or `stop`. */
  subscribe(subscription: Subscription): AsyncIterable<ConnectionEvent> {
    const subscriber = new Subscriber(subscription, () => this.#subscribers.delete(subscriber));
    const established = [...this.#shown.values()].filter((shown) => subscriber.wants(shown));
    const connections = Object.fromEntries(established.map(({ connection }) => [connection.id, connection]));
    const first = create(ConnectionEventSchema, { type: ConnectionEventType.INITIAL_STATE_TRANSFER, connections });
    this.#subscribers.add(subscriber);
    subscriber.endOn(subscription.signal);
    return subscriber.events(first);
  }

  /** Ends every stream without an error, as a server that shuts down does. */
  stop(): void {
    for (const subscriber of [...this.#subscribers]) subscriber.end();
  }

  #publish(type: ConnectionEventType, shown: Shown): void {
    for (const subscriber of this.#subscribers) {
      if (subscriber.wants(shown)) subscriber.push({ type, connection: shown.connection });
    }
  }
}

class Subscriber {
  readonly #subscription: Subscription;
  readonly #forget: () => void;
  #waiting: Waiting[] = [];
  #ended = false;
  #wake: () => void = () => {};

  constructor(subscription: Subscription, forget: () => void) {
    this.#subscription = subscription;
    this.#forget = forget;
  }

  wants({ owner, connection }: Shown): boolean {
    return this.#subscription.sees(owner) && isSelected(this.#subscription.selector, connection);
  }

  push(event: Waiting): void {
    this.#waiting.push(event);
    if (this.#waiting.length > QUEUE_LIMIT) this.#waiting = latestOfEach(this.#waiting);
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
        const next = this.#waiting.shift();
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

/** A slow reader needs the state, not the history: one event for each connection, the order of last changes kept. */
function latestOfEach(waiting: readonly Waiting[]): Waiting[] {
  const latest = new Map<string, Waiting>();
  for (const event of waiting) {
    latest.delete(event.connection.id);
    latest.set(event.connection.id, event);
  }
  return [...latest.values()];
}
