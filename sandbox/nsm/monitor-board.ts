import { clone } from "@bufbuild/protobuf";
import {
  type Connection,
  ConnectionEventType,
  ConnectionSchema,
  MonitorConnection,
  type MonitorScopeSelector,
  type PathSegment,
  type State,
} from "../../src/gen/connection_pb.ts";
import { type Call, type RpcHandler, streamHandler } from "../../src/rpc/index.ts";
import { Feed } from "./feed.ts";

interface Event {
  readonly type: (typeof ConnectionEventType)[keyof typeof ConnectionEventType];
  readonly connections: Record<string, Connection>;
}

/** The connections that an endpoint has, and everyone who watches them (nsm-protocol §2.7). */
export class MonitorBoard {
  readonly #connections = new Map<string, Connection>();
  readonly #listeners = new Set<(type: Event["type"], connection: Connection) => void>();

  /** Ids of those that it has. */
  get ids(): readonly string[] {
    return [...this.#connections.keys()];
  }

  /** Adds or changes a connection. */
  put(connection: Connection): void {
    const kept = clone(ConnectionSchema, connection);
    this.#connections.set(kept.id, kept);
    this.#publish(ConnectionEventType.UPDATE, kept);
  }

  remove(id: string): void {
    const connection = this.#connections.get(id);
    if (connection === undefined || !this.#connections.delete(id)) return;
    this.#publish(ConnectionEventType.DELETE, connection);
  }

  /** Publishes to the watchers another state of a connection: DOWN, or that a refresh or another endpoint is needed. */
  setState(id: string, state: State): void {
    const connection = this.#connections.get(id);
    if (connection === undefined) throw new Error(`Cannot set the state of ${id}: no such connection`);
    this.put({ ...connection, state });
  }

  handler(): RpcHandler {
    return streamHandler(MonitorConnection.method.monitorConnections, (selector, call) => this.#follow(selector, call));
  }

  async *#follow(selector: MonitorScopeSelector, call: Call): AsyncGenerator<Event> {
    const feed = new Feed<Event>(call.signal);
    const listener = (type: Event["type"], connection: Connection) => {
      if (isSelected(selector, connection)) feed.push({ type, connections: { [connection.id]: connection } });
    };
    const current = [...this.#connections].filter(([, connection]) => isSelected(selector, connection));
    feed.push({ type: ConnectionEventType.INITIAL_STATE_TRANSFER, connections: Object.fromEntries(current) });
    this.#listeners.add(listener);
    try {
      yield* feed;
    } finally {
      this.#listeners.delete(listener);
    }
  }

  #publish(type: Event["type"], connection: Connection): void {
    for (const listener of [...this.#listeners]) listener(type, connection);
  }
}

/** An empty selector takes all; its segments must appear in the path in a row, empty fields match anything. */
export function isSelected(selector: MonitorScopeSelector, connection: Connection): boolean {
  const { networkServices, pathSegments: desired } = selector;
  if (networkServices.length > 0 && !networkServices.includes(connection.networkService)) return false;
  const segments = connection.path?.pathSegments ?? [];
  const fitsAt = (start: number) =>
    desired.every((segment, offset) => isSegmentSelected(segment, segments[start + offset]));
  return desired.length === 0 || segments.some((_, start) => fitsAt(start));
}

function isSegmentSelected(desired: PathSegment, segment: PathSegment | undefined): boolean {
  if (segment === undefined) return false;
  return (["name", "id", "token"] as const).every(
    (field) => desired[field] === "" || desired[field] === segment[field],
  );
}
