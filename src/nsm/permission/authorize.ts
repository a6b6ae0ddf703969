import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../../async/index.ts";
import type { Connection } from "../../gen/connection_pb.ts";
import {
  decodeToken,
  type IssuedToken,
  isOfAnotherKey,
  type PathCheck,
  readTokenHeaders,
} from "../../identity/index.ts";
import { type Call, NotBegun, type PeerIdentity, type TlsCredentials } from "../../rpc/index.ts";
import { NsmError } from "../fault.ts";
import { type OwnPlace, ownSegment } from "../path.ts";
import { type ActingPeer, actingPeer, type ManagerSource, mayAct, type Owner } from "./connection-owner.ts";

/** What decides whether a caller may act. */
export interface Gate {
  /** An NSM token of ours for this audience, signed with the key of what it was shown: nsm-protocol §5. */
  issueToken(audience: PeerIdentity, shown: TlsCredentials | undefined): IssuedToken;
  /** The policies of the server, over the path as far as us: nsm-protocol §2.4. @throws when one refuses, with its name. */
  checkPath(path: PathCheck): void;
  readonly manager: ManagerSource;
  readonly clock: Clock;
}

/** A caller that may act. */
export interface AdmittedCaller {
  readonly peer: PeerIdentity;
  /** When the caller's verified token expires, in ms since 1970. */
  readonly tokenExpiresMs: number;
  /** The same, and for whom it calls. */
  readonly acting: ActingPeer;
}

/**
 * The original's updatetoken and authorize: records the caller's token and ours in the path (nsm-protocol §2.3), then checks
 * whether this caller may act on this connection: the policies of the path (nsm-protocol §2.4), and who made the connection if
 * it is established. Nothing has been touched yet. Work of our own (expiry, clean-up) never comes through here.
 * @throws {NsmError} no-identity, not-the-owner; the policies' own error; {NotBegun} when the caller seems to have renewed its
 * certificate since it connected.
 */
export function admit(
  gate: Gate,
  call: Call,
  requested: {
    readonly connection: Connection;
    readonly place: Pick<OwnPlace, "index">;
    readonly owner: Owner | undefined;
  },
): AdmittedCaller {
  const { connection, place, owner } = requested;
  const peer = call.connection.peer;
  if (!peer) throw noIdentity("the caller has no certificate");
  const acting = actingPeer(peer, connection, ownSegment(connection).name);
  if (owner && !mayAct(acting, owner, gate.manager)) {
    throw new NsmError({ kind: "not-the-owner", id: connection.id });
  }
  recordTokens(gate, call, { connection, place, peer });
  const segments = (connection.path?.pathSegments ?? []).slice(0, place.index + 1);
  try {
    gate.checkPath({ index: place.index, segments, peer, nowMs: gate.clock.now() });
  } catch (error) {
    if (!isOfAnotherKey(error) || !call.connection.renew()) throw error;
    throw new NotBegun(`${peer.spiffeId} is to call again, and to show the certificate of its key`, { cause: error });
  }
  const caller = segments[place.index - 1];
  if (!caller) throw noIdentity("the path has no segment of the caller");
  return { peer, tokenExpiresMs: decodeToken(caller.token).expMs, acting };
}

/** Headers that are missing or malformed leave the path's own values: the policies judge those. */
function recordTokens(
  gate: Gate,
  call: Call,
  {
    connection,
    place,
    peer,
  }: { readonly connection: Connection; readonly place: Pick<OwnPlace, "index">; readonly peer: PeerIdentity },
): void {
  const own = ownSegment(connection);
  const before = connection.path?.pathSegments[place.index - 1];
  const sent = readTokenHeaders(call.metadata);
  if (before && sent) {
    before.token = sent.token;
    before.expires = timestampFromMs(sent.expiresMs);
  }
  const issued = gate.issueToken(peer, call.connection.shown);
  own.token = issued.token;
  own.expires = timestampFromMs(issued.expiresMs);
}

/**
 * Puts our token for the next hop into the answer again. The one that is there was signed for the eyes of the next hop; the
 * caller judges it by the certificate of its own connection with us, which may show another of our keys (nsm-protocol §2.4).
 */
export function signAnswer(
  gate: Pick<Gate, "issueToken">,
  call: Call,
  { answer, nextHop }: { readonly answer: Connection; readonly nextHop: PeerIdentity | undefined },
): void {
  if (!nextHop) return;
  const own = ownSegment(answer);
  const issued = gate.issueToken(nextHop, call.connection.shown);
  own.token = issued.token;
  own.expires = timestampFromMs(issued.expiresMs);
}

function noIdentity(problem: string): NsmError {
  return new NsmError({ kind: "no-identity", problem });
}
