import { create } from "@bufbuild/protobuf";
import { type Clock, DeadlineError, startDeadline } from "../../async/index.ts";
import { type Connection, type Mechanism, MechanismSchema } from "../../gen/connection_pb.ts";
import { NetworkService } from "../../gen/networkservice_pb.ts";
import { copyMessage, DialRefused, type PeerIdentity, RpcError } from "../../rpc/index.ts";
import { type CandidateFailure, NsmError } from "../fault.ts";
import type { Caller } from "../peers.ts";
import { type Reply, readReply } from "./endpoint-reply.ts";
import type { Candidate } from "./find-endpoints.ts";

/** Work of our own at an endpoint may take this long, whatever the caller's deadline (W22). */
const CLOSE_LIMIT_MS = 5_000;

/** An endpoint that has not answered for so long when its caller gives up has failed; before, the caller was impatient. */
const SILENT_MS = 5_000;

/** Of the time that is left, for one candidate where others are to be tried: the last one has all of it. */
const SHARE_OF_TIME = 1 / 2;

/** What a Request to endpoints takes. */
export interface Requesting {
  readonly caller: Caller;
  readonly clock: Clock;
  /** For whom: what is dialled is in this one's share. */
  readonly owner?: string;
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
  /** When it is aborted at the latest, on the clock that never jumps. */
  readonly endsAtMs: number;
}

/**
 * Sends one candidate the Request: the original's connect, with mechanismtranslation, noop and filtermechanisms. It is offered
 * NOOP: the endpoint of an SR-IOV connection gets nothing from this node. What endpoints answer is not trusted: an answer that
 * contradicts the question is closed again.
 * @throws {NsmError} bad-reply; the endpoint's RpcError.
 */
export async function requestFromEndpoint(
  requesting: Requesting,
  candidate: Candidate,
  question: Omit<Question, "endsAtMs">,
): Promise<Onward> {
  const connection = copyMessage(question.connection);
  connection.networkServiceEndpointName = candidate.name;
  if (question.mechanism) connection.mechanism = question.mechanism;
  const offered = create(MechanismSchema, { cls: candidate.socket.isLocal ? "LOCAL" : "REMOTE", type: "NOOP" });
  const takeBack = () =>
    closeAtEndpoint(requesting, { candidate, connection, mechanism: offered }).catch((late: unknown) =>
      requesting.onCloseFailed(candidate.name, late),
    );
  let response: Connection;
  let peer: PeerIdentity | undefined;
  try {
    const message = { connection, mechanismPreferences: [offered] };
    const { target } = candidate.socket;
    const answer = await requesting.caller.call(target, NetworkService.method.request, message, {
      signal: question.signal,
      owner: requesting.owner,
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
  if (error instanceof DeadlineError) return true;
  return error instanceof RpcError && (error.code === "CANCELLED" || error.code === "DEADLINE_EXCEEDED");
}

/**
 * Sends the candidates the Request, in their order, until one agrees. One that does not answer in its share of the time gets a
 * Close, for it may have begun, and the next one is tried.
 * @throws {NsmError} candidates-failed; the error alone when there was one candidate by name.
 */
export async function tryCandidates(
  requesting: Requesting,
  candidates: readonly Candidate[],
  question: Question,
): Promise<Onward> {
  const { clock } = requesting;
  const { signal } = question;
  const failures: CandidateFailure[] = [];
  for (const candidate of candidates) {
    const startedMs = clock.monotonicMs();
    const limit = candidate === candidates.at(-1) ? undefined : startShare(clock, candidate, question);
    try {
      const onward = await requestFromEndpoint(requesting, candidate, { ...question, signal: limit?.signal ?? signal });
      candidate.note?.("agreed");
      return onward;
    } catch (error) {
      const isItsFault =
        !(error instanceof DialRefused) && (!signal.aborted || clock.monotonicMs() - startedMs >= SILENT_MS);
      if (isItsFault) candidate.note?.("failed");
      signal.throwIfAborted();
      failures.push({ endpoint: candidate.name, error });
    } finally {
      limit?.end();
    }
  }
  throw new NsmError({ kind: "candidates-failed", failures });
}

function startShare(clock: Clock, { name }: Candidate, { signal, endsAtMs }: Question) {
  const shareMs = Math.max(0, Math.floor((endsAtMs - clock.monotonicMs()) * SHARE_OF_TIME));
  return startDeadline(clock, shareMs, { what: `Request to endpoint ${name}`, parent: signal });
}

/** Notifies the endpoint that the connection is over. Bounded by a time of our own, not by any caller's. */
export async function closeAtEndpoint(requesting: Requesting, onward: Onward): Promise<void> {
  const { candidate, mechanism } = onward;
  const connection = copyMessage(onward.connection);
  connection.networkServiceEndpointName = candidate.name;
  if (mechanism) connection.mechanism = mechanism;
  const deadline = startDeadline(requesting.clock, CLOSE_LIMIT_MS, { what: `Close at endpoint ${candidate.name}` });
  try {
    const { signal } = deadline;
    const { caller, owner } = requesting;
    await caller.call(candidate.socket.target, NetworkService.method.close, connection, { signal, owner });
  } finally {
    deadline.end();
  }
}
