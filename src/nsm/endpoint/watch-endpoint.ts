import { equals, toJsonString } from "@bufbuild/protobuf";
import {
  type Connection,
  type ConnectionEvent,
  ConnectionEventType,
  ConnectionSchema,
  MonitorConnection,
  State,
} from "../../gen/connection_pb.ts";
import { ConnectionContextSchema } from "../../gen/connectioncontext_pb.ts";
import { copyMessage, RpcError } from "../../rpc/index.ts";
import { ownSegment } from "../path.ts";
import { checkConnectionSize } from "../permission/request-limits.ts";
import type { Requesting } from "./try-candidates.ts";

/** Connections read from one event; ours is one. */
const EVENT_LIMIT = 64;

/** An endpoint that is being listened to. */
export interface EndpointWatch {
  /** False when the endpoint was lost, or after `stop`: the next refresh begins a new watch. */
  readonly isAlive: boolean;
  readonly target: string;
  /** The connection was refreshed: later events are compared with this one. */
  rebase(connection: Connection): void;
  /** Listens no more and reports nothing more. */
  stop(): void;
}

/** What is reported about a watched endpoint. */
interface WatchListener {
  /** Whether there is room for the connection as it would be; an event that there is none for means nothing. */
  admits(connection: Connection): boolean;
  /** The connection has changed at the endpoint; state DOWN when the endpoint deleted it or was lost. */
  changed(connection: Connection): void;
  /** The stream ended with this error, or without one. */
  lost(error: unknown): void;
}

/**
 * The event loop of the original's monitor: listens to what the next hop says about our connection (nsm-protocol §2.7). A
 * stream that breaks or ends means that the endpoint is gone, which is reported once, as the connection with state DOWN.
 */
export function watchEndpoint(
  { caller, owner }: Pick<Requesting, "caller" | "owner">,
  target: string,
  watched: { readonly connection: Connection; readonly listener: WatchListener },
): EndpointWatch {
  const { listener } = watched;
  const { id, name } = ownSegment(watched.connection);
  const selector = { pathSegments: [{ id, name }] };
  const stream = caller.stream(target, MonitorConnection.method.monitorConnections, selector, { owner });
  stream.connection.catch(() => {}); // Its failure is also the stream's.
  let last = watched.connection;
  let alive = true;
  let stopped = false;
  const read = async () => {
    let failure: unknown;
    try {
      for await (const event of stream) {
        if (stopped) return;
        for (const changed of changesOf(event, last, (connection) => listener.admits(connection))) {
          last = changed;
          listener.changed(changed);
        }
      }
    } catch (error) {
      failure = error;
    }
    alive = false;
    if (stopped) return;
    listener.lost(failure);
    // An endpoint that cannot be listened to serves all the same; its death shows at the next refresh.
    if (failure instanceof RpcError && failure.code === "UNIMPLEMENTED") return;
    const down = copyMessage(last);
    down.state = State.DOWN;
    listener.changed(down);
  };
  void read();
  return {
    target,
    get isAlive() {
      return alive;
    },
    rebase(connection) {
      last = connection;
    },
    stop() {
      stopped = true;
      alive = false;
      stream.cancel();
    },
  };
}

/** What an event of the next hop means for our connection; events about anything else, or out of shape, mean nothing. */
export function changesOf(
  event: ConnectionEvent,
  ours: Connection,
  admits: WatchListener["admits"] = () => true,
): readonly Connection[] {
  const changes: Connection[] = [];
  let last = ours;
  for (const theirs of Object.values(event.connections).slice(0, EVENT_LIMIT)) {
    if (!isAbout(theirs, ours)) continue;
    const isOld = theirs.state === last.state && contextText(theirs) === contextText(last);
    if (event.type === ConnectionEventType.INITIAL_STATE_TRANSFER && isOld) continue;
    const changed = withTheirs(last, theirs);
    if (event.type === ConnectionEventType.DELETE) changed.state = State.DOWN;
    if (equals(ConnectionSchema, changed, last) || !admits(changed)) continue;
    last = changed;
    changes.push(changed);
  }
  return changes;
}

function isAbout(theirs: Connection, ours: Connection): boolean {
  const index = ours.path?.index ?? 0;
  if (theirs.path?.pathSegments[index]?.id !== ours.id) return false;
  if (theirs.path.index !== index && theirs.path.index !== index + 1) return false;
  // Another owner can have a connection of our id there: the endpoint's own id is of one.
  const [its, known] = [theirs, ours].map(({ path }) => path?.pathSegments[index + 1]);
  if (its && its.name === known?.name && its.id !== known.id) return false;
  try {
    checkConnectionSize(theirs);
    return true;
  } catch {
    return false;
  }
}

/** The path behind us, the context and the state are theirs; our own side stays. */
function withTheirs(ours: Connection, theirs: Connection): Connection {
  const changed = copyMessage(ours);
  const { context, path } = copyMessage(theirs);
  if (context) changed.context = context;
  else delete changed.context;
  changed.state = theirs.state;
  const behind = (ours.path?.index ?? 0) + 1;
  changed.path?.pathSegments.splice(behind, Number.POSITIVE_INFINITY, ...(path?.pathSegments.slice(behind) ?? []));
  return changed;
}

function contextText({ context }: Connection): string {
  return context ? toJsonString(ConnectionContextSchema, context) : "";
}
