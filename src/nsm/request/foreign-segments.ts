import type { Connection } from "../../gen/connection_pb.ts";
import { nextSegment } from "../path.ts";
import { type ActingPeer, type ManagerSource, mayAct } from "../permission/connection-owner.ts";
import type { Connections } from "./connections.ts";

/** Whose path it is, and where that leads. */
interface Traveller {
  /** Of the caller's connection. */
  readonly key: string;
  readonly acting: ActingPeer;
  /** Whether it goes to the endpoint that serves the connection. */
  readonly isToServing: boolean;
}

/**
 * Cuts the path behind us where it leads into another owner's connection. The next hop finds its connection by the id of its segment and
 * trusts us: with such a path we would refresh, change or close that one. The next hop makes a new segment instead. An id that
 * the caller's own endpoint has given stays where the Request goes to that endpoint: a hostile one can answer with the id of another
 * connection, and must neither end that one's refreshes nor lead into it.
 */
export function dropForeignSegments(
  deps: { readonly connections: Connections; readonly manager: ManagerSource },
  connection: Connection,
  { key, acting, isToServing }: Traveller,
): void {
  const next = nextSegment(connection);
  const own = deps.connections.get(key);
  if (!next || (isToServing && own && nextSegment(own.state.connection)?.id === next.id)) return;
  const isForeign = [...deps.connections.values()].some(
    ({ state, owner }) => nextSegment(state.connection)?.id === next.id && !mayAct(acting, owner, deps.manager),
  );
  if (isForeign && connection.path) connection.path.pathSegments.length = connection.path.index + 1;
}
