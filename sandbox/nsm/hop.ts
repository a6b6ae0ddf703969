import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../../src/async/index.ts";
import { type Connection, type PathSegment, PathSegmentSchema } from "../../src/gen/connection_pb.ts";
import { type Call, type PeerIdentity, RpcError } from "../../src/rpc/index.ts";
import type { Actor } from "./actor.ts";
import { readToken, tokenOfHeaders } from "./peer-token.ts";

/** One stop on the way of a Request: the NSMgr, or the endpoint at the end. */
export interface Hop {
  /** Name of its segment in the path. */
  readonly name: string;
  readonly actor: Actor;
  readonly clock: Clock;
  /** Ids of its own; random ones by default. */
  readonly newId?: (() => string) | undefined;
}

/** Puts id and index of an answer back to what the caller knows (nsm-protocol §2.1). */
export type LeavePath = (reply: Connection) => Connection;

/**
 * What each hop does first with a Request or Close: checks the caller's token, takes its own place in the path (changing the
 * connection) and checks that the tokens along the path hold together. Stricter than NSM where NSM trusts: the token
 * must be the peer's own.
 * @throws {RpcError} PERMISSION_DENIED or INVALID_ARGUMENT, saying what is wrong.
 */
export async function enterPath(hop: Hop, connection: Connection, call: Call): Promise<LeavePath> {
  const { caller, own, leave } = takePlace(hop, connection);
  const token = await checkCallerToken(hop, call);
  caller.token = token.token;
  caller.expires = timestampFromMs(token.expiresMs);
  const answer = hop.actor.token(call.connection.peer?.spiffeId);
  own.token = answer.token;
  own.expires = timestampFromMs(answer.expiresMs);
  checkChain(connection.path?.pathSegments.slice(0, (connection.path?.index ?? 0) + 1) ?? [], hop.clock.now());
  return leave;
}

/** The token of the call's headers, verified with the certificate of the peer that made the call. */
export async function checkCallerToken(
  hop: Omit<Hop, "name">,
  call: Call,
): Promise<{ token: string; expiresMs: number }> {
  const { peer } = call.connection;
  const token = tokenOfHeaders(call.metadata);
  if (peer === undefined) throw new RpcError("PERMISSION_DENIED", "no sufficient privileges: no client certificate");
  if (token === undefined) throw new RpcError("PERMISSION_DENIED", "no sufficient privileges: no token in the headers");
  try {
    await hop.actor.verifyToken(token.token, {
      certificatePem: peer.certificatePem,
      subject: peer.spiffeId,
      audience: hop.actor.spiffeId,
      nowMs: hop.clock.now(),
    });
  } catch (cause) {
    throw new RpcError("PERMISSION_DENIED", `no sufficient privileges: token of ${peer.spiffeId}: ${String(cause)}`);
  }
  return token;
}

/**
 * The token of the next hop in its answer, as NSM's client chain judges it (nsm-protocol §2.4): signed with the key of the
 * certificate that the next hop has shown on this connection.
 * @throws {RpcError} PERMISSION_DENIED, saying what is wrong.
 */
export async function checkNextToken(hop: Hop, reply: Connection, peer: PeerIdentity | undefined): Promise<void> {
  const [next, after] = reply.path?.pathSegments.slice(reply.path.index + 1) ?? [];
  if (peer === undefined) throw new RpcError("PERMISSION_DENIED", "no sufficient privileges: no server certificate");
  try {
    await hop.actor.verifyToken(next?.token ?? "", {
      certificatePem: peer.certificatePem,
      subject: peer.spiffeId,
      audience: after === undefined ? hop.actor.spiffeId : readToken(after.token).sub,
      nowMs: hop.clock.now(),
    });
  } catch (cause) {
    const whose = `next token of ${peer.spiffeId}`;
    throw new RpcError("PERMISSION_DENIED", `no sufficient privileges: ${whose}: ${String(cause)}`);
  }
}

function takePlace(
  { name, newId = randomUUID }: Hop,
  connection: Connection,
): { caller: PathSegment; own: PathSegment; leave: LeavePath } {
  const segments = connection.path?.pathSegments ?? [];
  const index = connection.path?.index ?? 0;
  const caller = segments[index];
  if (connection.path === undefined || caller === undefined) {
    throw new RpcError("INVALID_ARGUMENT", `path index ${index} lies outside the ${segments.length} segments`);
  }
  if (caller.id !== connection.id) {
    throw new RpcError("INVALID_ARGUMENT", `connection id ${connection.id} is not the id ${caller.id} of its segment`);
  }
  const own = segments[index + 1] ?? create(PathSegmentSchema);
  if (own.name !== name) Object.assign(own, { name, id: newId() });
  segments[index + 1] = own;
  connection.path.index = index + 1;
  connection.id = own.id;
  const leave: LeavePath = (reply) => {
    reply.id = caller.id;
    if (reply.path !== undefined) reply.path.index = index;
    return reply;
  };
  return { caller, own, leave };
}

/** The rules tokens_valid, tokens_expired and tokens_chained (nsm-protocol §2.4). */
function checkChain(segments: readonly PathSegment[], nowMs: number): void {
  const tokens = segments.map(({ name, token }) => {
    try {
      return { name, ...readToken(token) };
    } catch (cause) {
      throw new RpcError("PERMISSION_DENIED", `no sufficient privileges: token of ${name}: ${String(cause)}`);
    }
  });
  for (const [at, token] of tokens.entries()) {
    if (token.exp * 1000 <= nowMs) {
      throw new RpcError("PERMISSION_DENIED", `no sufficient privileges: token of ${token.name} has expired`);
    }
    const next = tokens[at + 1];
    if (next !== undefined && !token.aud.includes(next.sub)) {
      const says = `token of ${token.name} is for ${token.aud.join(", ")}, the next one of ${next.sub}`;
      throw new RpcError("PERMISSION_DENIED", `no sufficient privileges: ${says}`);
    }
  }
}
