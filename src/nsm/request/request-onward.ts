import { startDeadline } from "../../async/index.ts";
import type { Connection } from "../../gen/connection_pb.ts";
import { copyMessage, RpcError } from "../../rpc/index.ts";
import type { Candidate, Discovery, Offer } from "../endpoint/find-endpoints.ts";
import {
  closeAtEndpoint,
  type Onward,
  type Requesting,
  requestFromEndpoint,
  tryCandidates,
} from "../endpoint/try-candidates.ts";
import { renewTokens } from "../path.ts";
import { accountableName } from "../permission/connection-owner.ts";
import type { ConnectionQuota } from "../permission/connection-quota.ts";
import { sizeOf } from "../permission/quota.ts";
import { type ConnectionRecord, onwardOf } from "./connections.ts";

/** For an endpoint that a previous instance has left to us. */
const FIND_LIMIT_MS = 5_000;

/** What it takes to choose an endpoint and to send it the Request. */
export interface OnwardDeps {
  readonly requesting: Requesting;
  readonly discovery: Pick<Discovery, "find">;
}

/** For the connection's owner. */
export function requestingFor({ requesting }: Pick<OnwardDeps, "requesting">, { owner }: ConnectionRecord): Requesting {
  return { ...requesting, owner: accountableName(owner) };
}

/** The endpoint that serves the connection already, if this Request is content with it. */
export function keptEndpoint(record: ConnectionRecord | undefined, connection: Connection): Onward | undefined {
  const onward = record && onwardOf(record);
  const requested = connection.networkServiceEndpointName;
  if (!onward || (requested !== "" && requested !== onward.candidate.name)) return undefined;
  if (connection.networkService !== onward.connection.networkService) return undefined;
  // No endpoint named: any will do, so the one that serves; unless it was lost.
  return requested === "" && !record.watch?.isAlive ? undefined : onward;
}

/** Finds endpoints as the connection requests. The receiver passes the offer to `requestOffer`, or releases its sockets. */
export async function findEndpoints(
  deps: OnwardDeps,
  { owner }: Pick<ConnectionRecord, "owner">,
  { connection, signal }: { readonly connection: Connection; readonly signal: AbortSignal },
): Promise<Offer> {
  const { networkService, payload, labels, networkServiceEndpointName: endpointName } = connection;
  const sought = { networkService, payload, labels, endpointName, owner: accountableName(owner) };
  return await deps.discovery.find(sought, signal);
}

/** Lets go of every candidate but one. */
export function releaseOffer(candidates: readonly Candidate[], except?: Candidate): void {
  for (const candidate of candidates) if (candidate !== except) candidate.socket.release();
}

/** Sends the endpoints of an offer the Request in turn; keeps hold of the one that agreed. */
async function requestOffer(requesting: Requesting, offer: Offer, question: OnwardQuestion): Promise<Onward> {
  const connection = copyMessage(question.connection);
  connection.payload = offer.payload || connection.payload;
  const { signal, endsAtMs } = question;
  let agreed: Onward | undefined;
  try {
    const toEach = { connection, mechanism: undefined, signal, endsAtMs };
    agreed = await tryCandidates(requesting, offer.candidates, toEach);
    return agreed;
  } finally {
    releaseOffer(offer.candidates, agreed?.candidate);
  }
}

/** What is requested of endpoints for one connection. */
interface OnwardQuestion {
  /** At our own index, without a mechanism. */
  readonly connection: Connection;
  readonly signal: AbortSignal;
  /** When it is aborted at the latest, on the clock that never jumps. */
  readonly endsAtMs: number;
  /** Called when the endpoint that serves is out of reach, before another one gets the Request. */
  readonly beforeOthers: () => void;
  /** Endpoints that were found already; without them the endpoint that serves gets the Request, or one is looked up. */
  readonly offer?: Offer | undefined;
}

/**
 * Requests a connection onward. The Request for one that is served goes to its endpoint, over the connection that we keep to it;
 * the registry is queried only if that endpoint is out of reach (it may have moved) or another one is requested. An endpoint
 * that was replaced gets a Close, best effort (W29): the Request does not wait for it.
 */
export async function requestOnward(
  deps: OnwardDeps,
  record: ConnectionRecord,
  question: OnwardQuestion,
): Promise<Onward> {
  const { connection, signal, offer } = question;
  const requesting = requestingFor(deps, record);
  const kept = offer ? undefined : keptEndpoint(record, connection);
  if (kept) {
    try {
      return await requestFromEndpoint(requesting, kept.candidate, {
        connection,
        mechanism: kept.mechanism,
        signal,
      });
    } catch (error) {
      if (!(error instanceof RpcError && error.code === "UNAVAILABLE")) throw error;
      question.beforeOthers();
    }
  }
  const found = offer ?? (await findEndpoints(deps, record, { connection, signal }));
  const fresh = await requestOffer(requesting, lastFirst(found, record), question);
  const before = onwardOf(record);
  if (before) void leave(requesting, before, fresh);
  else if (record.state.onward === "unknown") void leaveUnknown(deps, record, { fresh, connection });
  return fresh;
}

/** A previous instance's endpoint has the connection still, and answers the same again: it is tried before others. */
function lastFirst(offer: Offer, { state }: ConnectionRecord): Offer {
  if (state.onward !== "unknown") return offer;
  const last = state.connection.networkServiceEndpointName;
  const isLast = ({ name }: Candidate) => name === last;
  const { candidates } = offer;
  return { ...offer, candidates: [...candidates.filter(isLast), ...candidates.filter((one) => !isLast(one))] };
}

interface Change {
  readonly fresh: Onward;
  /** As it was requested. */
  readonly connection: Connection;
}

async function leaveUnknown(deps: OnwardDeps, record: ConnectionRecord, { fresh, connection }: Change): Promise<void> {
  const requesting = requestingFor(deps, record);
  const last = record.state.connection;
  const name = last.networkServiceEndpointName;
  if (name === "" || name === fresh.candidate.name) return;
  const closed = copyMessage(last);
  renewTokens(closed, connection);
  try {
    const before = await findUnknown(deps, record, closed);
    if (before) await leave(requesting, before, fresh);
  } catch (error) {
    requesting.onCloseFailed(name, error);
  }
}

/** The endpoint that got the previous instance's Request for this connection (W24). */
export async function findUnknown(
  deps: OnwardDeps,
  record: Pick<ConnectionRecord, "owner">,
  connection: Connection,
): Promise<Onward | undefined> {
  const deadline = startDeadline(deps.requesting.clock, FIND_LIMIT_MS, { what: "the search for the endpoint" });
  try {
    const offer = await findEndpoints(deps, record, { connection, signal: deadline.signal });
    // It is queried by name, so there is no second one.
    const [candidate] = offer.candidates;
    return candidate && { candidate, connection, mechanism: undefined };
  } finally {
    deadline.end();
  }
}

async function leave(requesting: Requesting, before: Onward, after: Onward): Promise<void> {
  const { name, socket } = before.candidate;
  try {
    // The same endpoint behind the same socket has only received another Request.
    if (name !== after.candidate.name || socket.url !== after.candidate.socket.url) {
      await closeAtEndpoint(requesting, before);
    }
  } catch (error) {
    requesting.onCloseFailed(name, error);
  } finally {
    socket.release();
  }
}

/** What the endpoint has added counts, too. Of an answer that is too much only who gave it is kept. @throws {NsmError} over-quota. */
export function keepOnward(
  deps: { readonly quota: Pick<ConnectionQuota, "check"> },
  record: ConnectionRecord,
  onward: Onward,
): void {
  const before = onwardOf(record)?.connection;
  const bytes = sizeOf(onward.connection);
  record.state.onward = { ...onward, connection: before ?? onward.connection };
  // What the former endpoint says counts no more, also where this Request fails in a later step.
  if (record.watch?.target !== onward.candidate.socket.target) {
    record.watch?.stop();
    record.watch = undefined;
  }
  deps.quota.check({ ...record, bytes });
  record.state.onward = onward;
  record.bytes = bytes;
}
