import { clone, create } from "@bufbuild/protobuf";
import { type Clock, startDeadline } from "../../async/index.ts";
import { type Connection, ConnectionSchema, type Mechanism, MechanismSchema } from "../../gen/connection_pb.ts";
import { NetworkService } from "../../gen/networkservice_pb.ts";
import { type PeerIdentity, RpcError } from "../../rpc/index.ts";
import { type CandidateFailure, NsmError } from "../fault.ts";
import type { Caller } from "../peers.ts";
import { type Reply, readReply } from "./endpoint-reply.ts";
import type { Candidate } from "./find-endpoints.ts";

/** Work of our own at an endpoint may take this long, whatever the caller's deadline (W22). */
const CLOSE_LIMIT_MS = 5_000;

/** What a Request to endpoints takes. */
export interface Asking {
  readonly caller: Caller;
  readonly clock: Clock;
  /** An endpoint that agreed to something must get a Close when it comes to nothing; that failed. */
  readonly onCloseFailed: (endpoint: string, error: unknown) => void;
}

/** The endpoint that serves a connection. The holder releases the candidate's socket. */
export interface Onward extends Reply {
  readonly candidate: Candidate;
  /** Who answered; unknown after a restart, until the next Request to it. */
  readonly peer?: PeerIdentity | undefined;
}

/** What the Request to one endpoint says. */
export interface Question {
  /** At our own index, without a mechanism. */
  readonly connection: Connection;
  /** What this endpoint agreed to before; undefined at first. */
  readonly mechanism: Mechanism | undefined;
  readonly signal: AbortSignal;
}

/**
 * Sends one candidate the Request: the original's connect, with mechanismtranslation, noop and filtermechanisms. It is offered
 * NOOP: the endpoint of an SR-IOV connection gets nothing from this node. What endpoints answer is not trusted: an answer that
 * contradicts the question is closed again.
 * @throws {NsmError} bad-reply; the endpoint's RpcError.
 */
export async function askEndpoint(asking: Asking, candidate: Candidate, question: Question): Promise<Onward> {
  const connection = clone(ConnectionSchema, question.connection);
  connection.networkServiceEndpointName = candidate.name;
  if (question.mechanism) connection.mechanism = question.mechanism;
  const offered = create(MechanismSchema, { cls: candidate.socket.isLocal ? "LOCAL" : "REMOTE", type: "NOOP" });
  const takeBack = () =>
    closeAtEndpoint(asking, { candidate, connection, mechanism: offered }).catch((late: unknown) =>
      asking.onCloseFailed(candidate.name, late),
    );
  let response: Connection;
  let peer: PeerIdentity | undefined;
  try {
    const message = { connection, mechanismPreferences: [offered] };
    const { target } = candidate.socket;
    const answer = await asking.caller.call(target, NetworkService.method.request, message, {
      signal: question.signal,
    });
    response = answer.response;
    peer = answer.connection.peer;
  } catch (error) {
    // It may agree after we have stopped to listen, and would keep an address for no client. An established connection continues.
    if (!question.mechanism && isGivenUp(error)) void takeBack();
    throw error;
  }
  try {
    return { candidate, peer, ...readReply(connection, response, candidate.name) };
  } catch (error) {
    await takeBack();
    throw error;
  }
}

function isGivenUp(error: unknown): boolean {
  return error instanceof RpcError && (error.code === "CANCELLED" || error.code === "DEADLINE_EXCEEDED");
}

/**
 * Sends the candidates the Request, in their order, until one agrees.
 * @throws {NsmError} candidates-failed; the error alone when there was one candidate by name.
 */
export async function tryCandidates(
  asking: Asking,
  candidates: readonly Candidate[],
  question: Question,
): Promise<Onward> {
  const failures: CandidateFailure[] = [];
  for (const candidate of candidates) {
    try {
      return await askEndpoint(asking, candidate, question);
    } catch (error) {
      question.signal.throwIfAborted();
      failures.push({ endpoint: candidate.name, error });
    }
  }
  throw new NsmError({ kind: "candidates-failed", failures });
}

/** Notifies the endpoint that the connection is over. Bounded by a time of our own, not by any caller's. */
export async function closeAtEndpoint(asking: Asking, onward: Onward): Promise<void> {
  const { candidate, mechanism } = onward;
  const connection = clone(ConnectionSchema, onward.connection);
  connection.networkServiceEndpointName = candidate.name;
  if (mechanism) connection.mechanism = mechanism;
  const deadline = startDeadline(asking.clock, CLOSE_LIMIT_MS, { what: `Close at endpoint ${candidate.name}` });
  try {
    const { signal } = deadline;
    await asking.caller.call(candidate.socket.target, NetworkService.method.close, connection, { signal });
  } finally {
    deadline.end();
  }
}
