import { clone, create } from "@bufbuild/protobuf";
import {
  type Connection,
  ConnectionSchema,
  type Path,
  PathSchema,
  type PathSegment,
  PathSegmentSchema,
} from "../gen/connection_pb.ts";
import { NsmError } from "./fault.ts";

/** Where we are on the path of a connection after we have added ourselves. */
export interface OwnPlace {
  /** Index of our own segment. */
  readonly index: number;
  /** Index that the caller sees again in the answer: the segment before ours, or ours when the caller is our client half. */
  readonly callerIndex: number;
}

/**
 * The original's updatepath: moves the connection onto our own path segment, in place (nsm-protocol §2.1). Our id for the
 * connection is the id of that segment: kept when the path already knows us, new when it does not.
 * @throws {NsmError} bad-path, with the original's texts.
 */
export function extendPath(connection: Connection, name: string, newId: () => string): OwnPlace {
  connection.path ??= create(PathSchema);
  const { path } = connection;
  const segments = path.pathSegments;
  if (segments.length === 0) {
    path.index = 0;
    connection.id ||= newId();
    segments.push(create(PathSegmentSchema, { name, id: connection.id }));
    return { index: 0, callerIndex: 0 };
  }
  const current = segments[path.index];
  if (current?.name === name) {
    connection.id = idOf(current);
    return { index: path.index, callerIndex: path.index };
  }
  if (!current) {
    const next = path.index + 1;
    throw badPath(`Path.Index+1==${next} should be less or equal len(Path.PathSegments)==${segments.length}`);
  }
  if (current.id !== connection.id) {
    throw badPath(`Current PathSegment.Id==${current.id} should be equal Connection.Id==${connection.id}`);
  }
  return stepOnto(connection, path, name, newId);
}

function stepOnto(connection: Connection, path: Path, name: string, newId: () => string): OwnPlace {
  const callerIndex = path.index;
  path.index = callerIndex + 1;
  const next = path.pathSegments[path.index];
  if (!next) {
    path.pathSegments.push(create(PathSegmentSchema, { name, id: newId() }));
  } else if (next.name !== name) {
    // Another forwarder's place, for example of an earlier name of ours: its id means nothing to us. What comes after
    // it stays, so that the endpoint can find its own segment again.
    next.name = name;
    next.id = newId();
  }
  connection.id = idOf(ownSegment(connection));
  return { index: path.index, callerIndex };
}

function idOf(segment: PathSegment): string {
  if (segment.id === "") throw badPath("request.EventFactory.Id must not be zero valued");
  return segment.id;
}

/** The segment that the connection's index points to. */
export function ownSegment(connection: Connection): PathSegment {
  const segment = connection.path?.pathSegments[connection.path.index];
  if (!segment) throw badPath("Path.Index should point to a PathSegment");
  return segment;
}

/** Puts the caller's index and id back, in place: what the answer to a Request carries. */
export function returnToCaller(connection: Connection, place: OwnPlace): void {
  const segment = connection.path?.pathSegments[place.callerIndex];
  if (!connection.path || !segment) throw badPath("Path.Index should point to a PathSegment");
  connection.path.index = place.callerIndex;
  connection.id = segment.id;
}

/** A copy that may be shown or kept. `and their times`: also without what changes with each refresh. */
export function withoutTokens(connection: Connection, what?: "and their times"): Connection {
  const copy = clone(ConnectionSchema, connection);
  for (const segment of copy.path?.pathSegments ?? []) {
    segment.token = "";
    if (what) delete segment.expires;
  }
  return copy;
}

function badPath(problem: string): NsmError {
  return new NsmError({ kind: "bad-path", problem });
}
