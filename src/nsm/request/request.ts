// READ FIRST: the whole life of a Request, from the caller's message to the answer.
import { create, equals, toBinary } from "@bufbuild/protobuf";
import { startDeadline } from "../../async/index.ts";
import { type Connection, ConnectionSchema, State } from "../../gen/connection_pb.ts";
import { type ConnectionContext, ConnectionContextSchema } from "../../gen/connectioncontext_pb.ts";
import { type NetworkServiceRequest, NetworkServiceRequestSchema } from "../../gen/networkservice_pb.ts";
import { NetdevError } from "../../netdev/index.ts";
import { type Call, copyMessage } from "../../rpc/index.ts";
import type { Onward } from "../endpoint/try-candidates.ts";
import { NsmError } from "../fault.ts";
import type { Attachment } from "../mechanism/mechanism.ts";
import { isSameDesired, type MechanismChoice, mechanismChoices } from "../mechanism/requested-mechanism.ts";
import { extendPath, type OwnPlace, returnToCaller } from "../path.ts";
import { admit, signAnswer } from "../permission/authorize.ts";
import { actingPeer } from "../permission/connection-owner.ts";
import { checkRequestSize } from "../permission/request-limits.ts";
import { checkWaiting } from "./connection-turn.ts";
import { type ConnectionRecord, onwardOf } from "./connections.ts";
import { comerOf, earlierPathOf, leadOn, leadsTo } from "./earlier-path.ts";
import { establish } from "./establish.ts";
import { dropForeignSegments } from "./foreign-segments.ts";
import {
  mechanismRequest,
  onwardQuestion,
  type ReceivedRequest,
  type RequestDeps,
  type Way,
} from "./received-request.ts";
import { keepOnward, keptEndpoint, requestOnward } from "./request-onward.ts";
import { settle, showDown } from "./settle.ts";
import { receiveFiles, takeDown } from "./teardown.ts";

/** No Request runs longer, whatever its caller would wait: the connection's next one is behind it. */
const REQUEST_LIMIT_MS = 60_000;

/**
 * Serves a Request: first, refresh, change and reselect alike. The answer is at the caller's index.
 * @throws what `toStatus` understands; what was begun is undone by then, or is being reclaimed.
 */
export async function request(deps: RequestDeps, message: NetworkServiceRequest, call: Call): Promise<Connection> {
  checkRequestSize(message);
  const connection = message.connection ? copyMessage(message.connection) : create(ConnectionSchema);
  const { name, newId, names } = deps;
  const place = extendPath(connection, { name, newId, isOurs: (segment) => names.isOurs(segment) });
  refuseOthers(deps, message, connection);
  const files = deps.files.open(call.connection.fds, [connection.mechanism, ...message.mechanismPreferences]);
  const what = `Request of connection ${connection.id}`;
  const deadline = startDeadline(deps.clock, REQUEST_LIMIT_MS, { what, parent: call.signal });
  const { signal } = deadline;
  const endsAtMs = deps.clock.monotonicMs() + Math.min(REQUEST_LIMIT_MS, call.deadlineMs ?? REQUEST_LIMIT_MS);
  try {
    return await requestInTurn(deps, { message, connection, place, call, files, signal, endsAtMs });
  } finally {
    deadline.end();
    files.end();
  }
}

/**
 * Under an earlier name. An id that we do not know begins a connection, whatever its path says; what was not made under it is served under
 * another. The manager tries its next candidate then. @throws {NsmError} earlier-name
 */
function refuseOthers(deps: RequestDeps, message: NetworkServiceRequest, { id }: Connection): void {
  const { isEarlierName, name, names } = deps;
  if (!isEarlierName || (names.isKnown(id) && isMadeUnder(deps, message, id))) return;
  throw new NsmError({ kind: "earlier-name", name });
}

/**
 * As the caller says, or as we have it: an answer may have been lost between us. A manager that remembers no name tries all of ours when one
 * fails: the endpoint has failed by then, and is not asked again under each.
 */
function isMadeUnder({ name, names }: RequestDeps, { connection }: NetworkServiceRequest, id: string): boolean {
  const path = connection?.path?.pathSegments.slice(connection.path.index, connection.path.index + 2) ?? [];
  return path.some((segment) => segment.name === name) || names.isUnder(name, id);
}

/** Not in its turn yet: whose connection it is is claimed only. */
type ComingRequest = Omit<ReceivedRequest, "key" | "caller"> & { readonly place: OwnPlace };

async function requestInTurn(deps: RequestDeps, coming: ComingRequest): Promise<Connection> {
  const { message, connection, call, signal } = coming;
  const acting = actingPeer(call.connection.peer, connection, deps.name);
  const comer = comerOf(acting, connection, message);
  const sizeBytes = () => toBinary(NetworkServiceRequestSchema, message).length;
  for (;;) {
    const { key, leave } = deps.keys.enter(acting, connection.id, () => earlierPathOf(deps, comer)?.id);
    const inTurn = async () => {
      const known = deps.connections.get(key);
      // What it was to continue has ended meanwhile, and the key is another one's.
      return known && !leadsTo(deps, known, comer) ? undefined : await answer(deps, key, coming);
    };
    try {
      checkWaiting(deps, key, { method: "Request", id: connection.id, sizeBytes });
      const answered = await deps.turns.run(key, inTurn, signal);
      if (answered) return answered;
    } finally {
      leave();
    }
  }
}

async function answer(deps: RequestDeps, key: string, coming: ComingRequest): Promise<Connection> {
  const { connection, place, call } = coming;
  refuseOthers(deps, coming.message, connection); // it may have ended meanwhile
  const known = deps.connections.get(key);
  const caller = admit(deps, call, { connection, place, owner: known?.owner });
  // Its client is there, whatever comes of this.
  known?.expiry.undoClose();
  if (known && isConfirmed(known, connection)) connection.state = State.UP;
  if (known && known.state.connection.id !== connection.id) {
    leadOn(connection, known);
    deps.log.info("connection-continues", { connection: key, from: known.state.connection.id, id: connection.id });
  }
  const isToServing = keptEndpoint(known, connection) !== undefined;
  dropForeignSegments(deps, connection, { key, acting: caller.acting, isToServing });
  delete connection.mechanism;
  const record = await serve(deps, { ...coming, key, caller });
  const answered = copyMessage(record.state.connection);
  signAnswer(deps, call, { answer: answered, nextHop: onwardOf(record)?.peer });
  returnToCaller(answered, place);
  return answered;
}

async function serve(deps: RequestDeps, request: ReceivedRequest): Promise<ConnectionRecord> {
  await clearTheWay(deps, request);
  const hasOwn = (request.message.connection?.mechanism?.type ?? "") !== "";
  const attempts: unknown[] = [];
  for (const choice of establishedFirst(mechanismChoices(request.message), deps.connections.get(request.key))) {
    let isRefresh = false;
    try {
      const desired = choice.read();
      isRefresh = deps.connections.get(request.key)?.state.attachment?.canServe(desired) ?? false;
      return await serveWith(deps, request, { choice, desired });
    } catch (error) {
      // What is established is never given up because it could not be confirmed: no other mechanism is tried then.
      if (hasOwn || isRefresh) throw error;
      // The time is up: where it went says more than that it is up.
      if (error instanceof NetdevError && error.fault.kind === "busy") throw error;
      request.signal.throwIfAborted();
      attempts.push(error);
    }
  }
  throw new NsmError({ kind: "no-mechanism", attempts });
}

/** What the client has is not given up for a preference that it may not get: only a connection that begins goes by the client's order. */
function establishedFirst(
  choices: readonly MechanismChoice[],
  record: ConnectionRecord | undefined,
): readonly MechanismChoice[] {
  if (!record?.state.attachment || choices.length < 2) return choices;
  const { desired: has, attachment } = record.state;
  const rank = (choice: MechanismChoice) => {
    try {
      const desired = choice.read();
      if (!attachment.canServe(desired)) return 2;
      return isSameDesired(has, desired) ? 0 : 1;
    } catch {
      return 2; // the reason is in the attempt
    }
  };
  const ranked = choices.map((choice) => ({ choice, rank: rank(choice) }));
  return ranked.sort((a, b) => a.rank - b.rank).map(({ choice }) => choice);
}

/**
 * The first Request since our start, and it reselects: a previous instance was away, and heal has taken that for the end. What the client has
 * is as it was, so it is only confirmed. A client that reselects once more means it.
 */
function isConfirmed({ state }: ConnectionRecord, connection: Connection): boolean {
  return connection.state === State.RESELECT_REQUESTED && state.phase === "established" && state.onward === "unknown";
}

/** An earlier life that is to end, or has not ended well, must be over before a new one begins. */
async function clearTheWay(deps: RequestDeps, { key, connection, files, signal }: ReceivedRequest): Promise<void> {
  const record = deps.connections.get(key);
  if (!record) return;
  const reselect = connection.state === State.RESELECT_REQUESTED;
  if (record.state.phase !== "reclaiming" && !reselect) return;
  await receiveFiles(deps, record, { files, signal });
  const outcome = await takeDown(deps, record, reselect ? "reselected" : "retried");
  if (outcome.kind === "resists") throw new NsmError({ kind: "reclaiming", id: record.state.connection.id });
}

async function serveWith(deps: RequestDeps, request: ReceivedRequest, way: Way): Promise<ConnectionRecord> {
  const record = deps.connections.get(request.key);
  if (record?.state.phase === "reclaiming") throw new NsmError({ kind: "reclaiming", id: record.state.connection.id });
  const attachment = record?.state.attachment;
  if (record && attachment?.canServe(way.desired)) return await refresh(deps, request, { ...way, record, attachment });
  return await establish(deps, request, way);
}

/** An established connection continues: the endpoint gets the Request again, the node is touched only where something differs. */
async function refresh(
  deps: RequestDeps,
  request: ReceivedRequest,
  established: Way & { readonly record: ConnectionRecord; readonly attachment: Attachment },
): Promise<ConnectionRecord> {
  const { record, attachment, choice, desired } = established;
  const { signal } = request;
  const isSame = isSameDesired(record.state.desired, desired);
  const before = onwardOf(record)?.connection.context;
  // Mostly the endpoint answers the same again: the node is read while we wait for it. What cannot be read is applied again.
  const wasInForce = isSame
    ? deps.steps.run("observe", () => attachment.isInForce(before, signal)).catch(() => false)
    : false;
  let onward: Onward;
  try {
    onward = await requestOnward(deps, record, onwardQuestion(deps, request));
    keepOnward(deps, record, onward);
    const { context } = onward.connection;
    if (!(await wasInForce) || !isSameContext(before, context)) {
      await deps.steps.run("apply", () => attachment.apply(mechanismRequest(request, desired), context));
      deps.log.info("connection-changed", { connection: record.id, mechanism: desired.type });
    }
  } catch (error) {
    // The client keeps what it has; watchers learn that the control plane could not confirm it.
    showDown(deps, record, error);
    throw error;
  }
  const { caller, call } = request;
  await settle(deps, record, { choice, desired, attachment, onward, caller, callerDeadlineMs: call.deadlineMs });
  return record;
}

function isSameContext(a: ConnectionContext | undefined, b: ConnectionContext | undefined): boolean {
  return a === undefined || b === undefined ? a === b : equals(ConnectionContextSchema, a, b);
}
