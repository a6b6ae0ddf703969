// READ FIRST: the whole life of a Request, from the caller's message to the answer.
import { clone, create, equals } from "@bufbuild/protobuf";
import { both, startDeadline } from "../../async/index.ts";
import { type Connection, ConnectionSchema, State } from "../../gen/connection_pb.ts";
import { type ConnectionContext, ConnectionContextSchema } from "../../gen/connectioncontext_pb.ts";
import type { NetworkServiceRequest } from "../../gen/networkservice_pb.ts";
import { NetdevError } from "../../netdev/index.ts";
import type { Call } from "../../rpc/index.ts";
import type { Onward } from "../endpoint/try-candidates.ts";
import { NsmError } from "../fault.ts";
import type { CallFiles, FilesOfCalls } from "../mechanism/call-files.ts";
import type { Attachment, MechanismDriver, MechanismDrivers, MechanismRequest } from "../mechanism/mechanism.ts";
import {
  type DesiredMechanism,
  isSameDesired,
  type MechanismChoice,
  mechanismChoices,
  PARAMETER,
} from "../mechanism/requested-mechanism.ts";
import { extendPath, returnToCaller } from "../path.ts";
import { type AdmittedCaller, admit, type Gate, signAnswer } from "../permission/authorize.ts";
import { ownerFor } from "../permission/connection-owner.ts";
import type { ConnectionQuota } from "../permission/connection-quota.ts";
import { sizeOf } from "../permission/quota.ts";
import { checkRequestSize } from "../permission/request-limits.ts";
import { type ConnectionContent, type ConnectionRecord, onwardOf } from "./connections.ts";
import { clientOf, openAttachment } from "./earlier-path.ts";
import { journalEntry } from "./journal-entry.ts";
import { findEndpoints, keptEndpoint, type OnwardDeps, releaseOffer, requestOnward } from "./request-onward.ts";
import { type SettleDeps, settle, showDown } from "./settle.ts";
import { addConnection, receiveFiles, type TeardownDeps, takeDown } from "./teardown.ts";

/** No Request runs longer, whatever its caller would wait: the connection's next one is behind it. */
const REQUEST_LIMIT_MS = 60_000;

/** Everything that serving a Request takes. */
export interface RequestDeps extends Gate, TeardownDeps, OnwardDeps, SettleDeps {
  /** Our name on paths. */
  readonly name: string;
  readonly newId: () => string;
  readonly files: FilesOfCalls;
  readonly mechanisms: MechanismDrivers;
  readonly quota: ConnectionQuota;
}

/** One Request in its turn. */
interface Ask {
  readonly message: NetworkServiceRequest;
  /** At our own index, with the tokens of this hop, without a mechanism. */
  readonly connection: Connection;
  readonly caller: AdmittedCaller;
  readonly call: Call;
  readonly files: CallFiles;
  readonly signal: AbortSignal;
}

/** One way to serve it. */
interface Way {
  readonly choice: MechanismChoice;
  readonly desired: DesiredMechanism;
}

/**
 * Serves a Request: first, refresh, change and reselect alike. The answer is at the caller's index.
 * @throws what `toStatus` understands; what was begun is undone by then, or is being reclaimed.
 */
export async function request(deps: RequestDeps, message: NetworkServiceRequest, call: Call): Promise<Connection> {
  checkRequestSize(message);
  const connection = message.connection ? clone(ConnectionSchema, message.connection) : create(ConnectionSchema);
  const place = extendPath(connection, deps.name, deps.newId);
  const files = deps.files.open(call.connection.fds, [connection.mechanism, ...message.mechanismPreferences]);
  const what = `Request of connection ${connection.id}`;
  const deadline = startDeadline(deps.clock, REQUEST_LIMIT_MS, { what, parent: call.signal });
  const { signal } = deadline;
  const inTurn = async () => {
    const owner = deps.connections.get(connection.id)?.owner;
    const caller = admit(deps, call, { connection, place, owner });
    delete connection.mechanism;
    const record = await serve(deps, { message, connection, caller, call, files, signal });
    const answer = clone(ConnectionSchema, record.state.connection);
    signAnswer(deps, call, { answer, nextHop: onwardOf(record)?.peer });
    returnToCaller(answer, place);
    return answer;
  };
  try {
    return await deps.turns.run(connection.id, inTurn, signal);
  } finally {
    deadline.end();
    files.end();
  }
}

async function serve(deps: RequestDeps, ask: Ask): Promise<ConnectionRecord> {
  await clearTheWay(deps, ask);
  const hasOwn = (ask.message.connection?.mechanism?.type ?? "") !== "";
  const attempts: unknown[] = [];
  for (const choice of mechanismChoices(ask.message)) {
    let isRefresh = false;
    try {
      const desired = choice.read();
      isRefresh = deps.connections.get(ask.connection.id)?.state.attachment?.canServe(desired) ?? false;
      return await serveWith(deps, ask, { choice, desired });
    } catch (error) {
      // What is established is never given up because it could not be confirmed: no other mechanism is tried then.
      if (hasOwn || isRefresh) throw error;
      // The time is up: where it went says more than that it is up.
      if (error instanceof NetdevError && error.fault.kind === "busy") throw error;
      ask.signal.throwIfAborted();
      attempts.push(error);
    }
  }
  throw new NsmError({ kind: "no-mechanism", attempts });
}

/** An earlier life that is to end, or has not ended well, must be over before a new one begins. */
async function clearTheWay(deps: RequestDeps, { message, connection, files, signal }: Ask): Promise<void> {
  const record = deps.connections.get(connection.id);
  if (!record) return;
  const reselect = message.connection?.state === State.RESELECT_REQUESTED;
  if (record.state.phase !== "reclaiming" && !reselect) return;
  await receiveFiles(deps, record, { files, signal });
  const outcome = await takeDown(deps, record, reselect ? "reselected" : "retried");
  if (outcome.kind === "resists") throw new NsmError({ kind: "reclaiming", id: record.id });
}

async function serveWith(deps: RequestDeps, ask: Ask, way: Way): Promise<ConnectionRecord> {
  const record = deps.connections.get(ask.connection.id);
  if (record?.state.phase === "reclaiming") throw new NsmError({ kind: "reclaiming", id: record.id });
  const attachment = record?.state.attachment;
  if (record && attachment?.canServe(way.desired)) return await refresh(deps, ask, { ...way, record, attachment });
  return await establish(deps, ask, way);
}

/** An established connection continues: the endpoint gets the Request again, the node is touched only where something differs. */
async function refresh(
  deps: RequestDeps,
  ask: Ask,
  established: Way & { readonly record: ConnectionRecord; readonly attachment: Attachment },
): Promise<ConnectionRecord> {
  const { record, attachment, choice, desired } = established;
  const { connection, signal } = ask;
  const isSame = isSameDesired(record.state.desired, desired);
  const before = onwardOf(record)?.connection.context;
  // Mostly the endpoint answers the same again: the node is read while we wait for it. What cannot be read is applied again.
  const wasInForce = isSame
    ? deps.steps.run("observe", () => attachment.isInForce(before, signal)).catch(() => false)
    : false;
  let onward: Onward;
  try {
    onward = await requestOnward(deps, record, { connection, signal });
    keepOnward(deps, record, onward);
    const { context } = onward.connection;
    if (!(await wasInForce) || !isSameContext(before, context)) {
      await deps.steps.run("apply", () => attachment.apply(mechanismRequest(ask, desired), context));
      deps.log.info("connection-changed", { connection: record.id, mechanism: desired.type });
    }
  } catch (error) {
    // The client keeps what it has; watchers learn that the control plane could not confirm it.
    showDown(deps, record, error);
    throw error;
  }
  const { caller, call } = ask;
  await settle(deps, record, { choice, desired, attachment, onward, caller, callerDeadlineMs: call.deadlineMs });
  return record;
}

/** A connection that is new, or whose mechanism is: everything is undone if any step fails. */
async function establish(deps: RequestDeps, ask: Ask, way: Way): Promise<ConnectionRecord> {
  const { desired } = way;
  const driver: MechanismDriver | undefined = deps.mechanisms[desired.type];
  if (!driver) throw new NsmError({ kind: "cannot-give", mechanism: desired.type });
  const startedMs = deps.clock.monotonicMs();
  const content = { connection: { ...ask.connection, mechanism: way.choice.mechanism }, desired };
  const record = openRecord(deps, ask, content);
  try {
    await establishWith(deps, ask, { ...way, driver, record, content });
  } catch (error) {
    await takeDown(deps, record, "failed");
    throw error;
  }
  const tookMs = Math.round(deps.clock.monotonicMs() - startedMs);
  const endpoint = onwardOf(record)?.candidate.name;
  const vf = record.state.attachment?.parameters[PARAMETER.pciAddress];
  deps.log.info("connection-established", { connection: record.id, mechanism: desired.type, vf, endpoint, tookMs });
  return record;
}

/** The connection's record, new or of the mechanism before. @throws {NsmError} over-quota. */
function openRecord(
  deps: RequestDeps,
  { connection, caller }: Ask,
  content: Pick<ConnectionContent, "connection" | "desired">,
): ConnectionRecord {
  const { id } = connection;
  const owner = ownerFor(caller.peer.spiffeId, deps.manager);
  const counted = { id, owner, holdsVf: content.desired.type !== "NOOP", bytes: sizeOf(content.connection) };
  deps.quota.check(counted);
  const client = clientOf(connection);
  const known = deps.connections.get(id);
  if (!known) {
    const state = { phase: "opening", ...content, attachment: undefined, onward: undefined } as const;
    return addConnection(deps, counted, { client, state });
  }
  const { holdsVf, bytes } = counted;
  return Object.assign(known, { holdsVf, bytes, client });
}

interface Establishing extends Way {
  readonly driver: MechanismDriver;
  readonly record: ConnectionRecord;
  readonly content: Pick<ConnectionContent, "connection" | "desired">;
}

async function establishWith(deps: RequestDeps, ask: Ask, establishing: Establishing): Promise<void> {
  const { driver, record, content, choice, desired } = establishing;
  const { connection, caller, call, files, signal } = ask;
  const kept = keptEndpoint(record, connection);
  // Of the mechanism before; one connection has one. After a restart of ours it may need the client's namespace for that.
  await receiveFiles(deps, record, { files, signal });
  const former = record.state.attachment;
  if (former) await deps.steps.run("release", () => former.release());
  record.state = { phase: "opening", ...content, attachment: undefined, onward: record.state.onward };
  // Touches nothing, and refuses a token that is none: that must not cost a write.
  const attachment = await openAttachment(deps, ask, () => driver.open(mechanismRequest(ask, desired)));
  record.state = { ...record.state, attachment };
  await deps.journal.put(journalEntry(record, content, "preparing"));
  const [offer] = await both(
    signal,
    {
      run: async (either) => (kept ? undefined : await findEndpoints(deps, connection, either)),
      drop: (found) => releaseOffer(found?.candidates ?? []),
    },
    {
      run: (either) =>
        deps.steps.run("prepare", () => attachment.prepare({ ...mechanismRequest(ask, desired), signal: either })),
    },
  );
  const onward = await requestOnward(deps, record, { connection, signal, offer });
  keepOnward(deps, record, onward);
  await deps.steps.run("apply", () => attachment.apply(mechanismRequest(ask, desired), onward.connection.context));
  signal.throwIfAborted();
  await settle(deps, record, { choice, desired, attachment, onward, caller, callerDeadlineMs: call.deadlineMs });
}

/** What the endpoint has added counts, too. Of an answer that is too much only who gave it is kept. @throws {NsmError} over-quota. */
function keepOnward(deps: RequestDeps, record: ConnectionRecord, onward: Onward): void {
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

function mechanismRequest<W extends DesiredMechanism>(
  { connection, files, signal }: Ask,
  desired: W,
): MechanismRequest<W> {
  return { connectionId: connection.id, desired, files, signal };
}

function isSameContext(a: ConnectionContext | undefined, b: ConnectionContext | undefined): boolean {
  return a === undefined || b === undefined ? a === b : equals(ConnectionContextSchema, a, b);
}
