import { clone } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema } from "../../gen/connection_pb.ts";
import { RpcError } from "../../rpc/index.ts";
import type { Candidate, Discovery, Offer } from "../endpoint/find-endpoints.ts";
import { type Asking, askEndpoint, closeAtEndpoint, type Onward, tryCandidates } from "../endpoint/try-candidates.ts";
import { type ConnectionRecord, onwardOf } from "./connections.ts";

/** What it takes to choose an endpoint and to send it the Request. */
export interface OnwardDeps {
  readonly asking: Asking;
  readonly discovery: Pick<Discovery, "find">;
}

/** The endpoint that serves the connection already, if this Request is content with it. */
export function keptEndpoint(record: ConnectionRecord | undefined, connection: Connection): Onward | undefined {
  const onward = record && onwardOf(record);
  const asked = connection.networkServiceEndpointName;
  if (!onward || (asked !== "" && asked !== onward.candidate.name)) return undefined;
  if (connection.networkService !== onward.connection.networkService) return undefined;
  // No endpoint named: any will do, so the one that serves; unless it was lost.
  return asked === "" && !record.watch?.isAlive ? undefined : onward;
}

/** Finds endpoints as the connection requests. The receiver passes the offer to `askOffer`, or releases its sockets. */
export async function findEndpoints(deps: OnwardDeps, connection: Connection, signal: AbortSignal): Promise<Offer> {
  const { networkService, payload, labels, networkServiceEndpointName: endpointName } = connection;
  return await deps.discovery.find({ networkService, payload, labels, endpointName }, signal);
}

/** Lets go of every candidate but one. */
export function releaseOffer(candidates: readonly Candidate[], except?: Candidate): void {
  for (const candidate of candidates) if (candidate !== except) candidate.socket.release();
}

/** Sends the endpoints of an offer the Request in turn; keeps hold of the one that agreed. */
async function askOffer(deps: OnwardDeps, offer: Offer, question: OnwardQuestion): Promise<Onward> {
  const connection = clone(ConnectionSchema, question.connection);
  connection.payload = offer.payload || connection.payload;
  const { signal } = question;
  let agreed: Onward | undefined;
  try {
    agreed = await tryCandidates(deps.asking, offer.candidates, { connection, mechanism: undefined, signal });
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
  const kept = offer ? undefined : keptEndpoint(record, connection);
  if (kept) {
    try {
      return await askEndpoint(deps.asking, kept.candidate, { connection, mechanism: kept.mechanism, signal });
    } catch (error) {
      if (!(error instanceof RpcError && error.code === "UNAVAILABLE")) throw error;
    }
  }
  const fresh = await askOffer(deps, offer ?? (await findEndpoints(deps, connection, signal)), question);
  const before = onwardOf(record);
  if (before) void leave(deps, before, fresh);
  return fresh;
}

async function leave(deps: OnwardDeps, before: Onward, after: Onward): Promise<void> {
  const { name, socket } = before.candidate;
  try {
    // The same endpoint behind the same socket has only received another Request.
    if (name !== after.candidate.name || socket.url !== after.candidate.socket.url) {
      await closeAtEndpoint(deps.asking, before);
    }
  } catch (error) {
    deps.asking.onCloseFailed(name, error);
  } finally {
    socket.release();
  }
}
