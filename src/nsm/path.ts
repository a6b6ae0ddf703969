import { create } from "@bufbuild/protobuf";
import { type Connection, type Path, PathSchema, type PathSegment, PathSegmentSchema } from "../gen/connection_pb.ts";
import { copyMessage } from "../rpc/index.ts";
import { NsmError } from "./fault.ts";

/** Where we are on the path of a connection after we have added ourselves. */
export interface OwnPlace {
  /** Index of our own segment. */
  readonly index: number;
  /** Index that the caller sees again in the answer: the segment before ours, or ours when the caller is our client half. */
  readonly callerIndex: number;
  /** The path did not lead to a segment of ours: this one is new, and so is its id. */
  readonly isNew: boolean;
}

/** What makes a segment ours. */
export interface OwnSegments {
  /** Our name where the call came in. */
  readonly name: string;
  readonly newId: () => string;
  /** True for the segment of a connection of ours, whatever we were called when it was made. */
  isOurs(segment: PathSegment): boolean;
}

/**
 * The original's updatepath: moves the connection onto our own path segment, in place (nsm-protocol §2.1). Our id for the
 * connection is the id of that segment: kept when the path already knows us, new when it does not. A connection that was made under an
 * earlier name of ours gets the name of today, and keeps its id (docs/decisions/052).
 * @throws {NsmError} bad-path, with the original's texts.
 */
export function extendPath(connection: Connection, own: OwnSegments): OwnPlace {
  const { name, newId } = own;
  connection.path ??= create(PathSchema);
  const { path } = connection;
  const segments = path.pathSegments;
  if (segments.length === 0) {
    path.index = 0;
    connection.id ||= newId();
    segments.push(create(PathSegmentSchema, { name, id: connection.id }));
    return { index: 0, callerIndex: 0, isNew: true };
  }
  const current = segments[path.index];
  if (current?.name === name) {
    connection.id = idOf(current);
    return { index: path.index, callerIndex: path.index, isNew: false };
  }
  if (!current) {
    const next = path.index + 1;
    throw badPath(`Path.Index+1==${next} should be less or equal len(Path.PathSegments)==${segments.length}`);
  }
  if (current.id !== connection.id) {
    throw badPath(`Current PathSegment.Id==${current.id} should be equal Connection.Id==${connection.id}`);
  }
  return stepOnto(connection, path, own);
}

function stepOnto(connection: Connection, path: Path, { name, newId, isOurs }: OwnSegments): OwnPlace {
  const callerIndex = path.index;
  path.index = callerIndex + 1;
  const next = path.pathSegments[path.index];
  const isNew = next === undefined || (next.name !== name && !isOurs(next));
  if (!next) {
    path.pathSegments.push(create(PathSegmentSchema, { name, id: newId() }));
  } else {
    // Another forwarder's place: its id means nothing to us. What comes after it stays, so that the endpoint can find its own
    // segment again.
    if (isNew) next.id = newId();
    next.name = name;
  }
  connection.id = idOf(ownSegment(connection));
  return { index: path.index, callerIndex, isNew };
}

/** The segment behind the one that the path is at. */
export function nextSegment({ path }: Pick<Connection, "path">): PathSegment | undefined {
  return path?.pathSegments[path.index + 1];
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
export function returnToCaller(connection: Connection, place: Pick<OwnPlace, "callerIndex">): void {
  const segment = connection.path?.pathSegments[place.callerIndex];
  if (!connection.path || !segment) throw badPath("Path.Index should point to a PathSegment");
  connection.path.index = place.callerIndex;
  connection.id = segment.id;
}

/** A copy that may be shown or kept. `and their times`: also without what changes with each refresh. */
export function withoutTokens(connection: Connection, what?: "and their times"): Connection {
  const copy = copyMessage(connection);
  for (const segment of copy.path?.pathSegments ?? []) {
    segment.token = "";
    if (what) delete segment.expires;
  }
  return copy;
}

/**
 * No token outlives a restart of ours, and the endpoint wants to see those of the whole path: takes them from a call for the same connection.
 * As far as us they are of the same peers in the same places, also where that call came by another path.
 */
export function renewTokens(stored: Connection, called: Connection): void {
  const own = stored.path?.index === called.path?.index ? (stored.path?.index ?? -1) : -1;
  for (const [index, { id, token, expires }] of (called.path?.pathSegments ?? []).entries()) {
    const segment = stored.path?.pathSegments[index];
    if (!segment || (index > own && segment.id !== id)) return;
    segment.token = token;
    if (expires) segment.expires = expires;
  }
}

function badPath(problem: string): NsmError {
  return new NsmError({ kind: "bad-path", problem });
}
