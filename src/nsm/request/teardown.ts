import { type Clock, createBackoff, type KeyedQueue } from "../../async/index.ts";
import type { Log } from "../../telemetry/index.ts";
import { closeAtEndpoint } from "../endpoint/try-candidates.ts";
import { textOf } from "../fault.ts";
import type { PassedFilesOfCall } from "../mechanism/mechanism.ts";
import type { MonitorHub } from "../monitor/monitor.ts";
import type { Held } from "../permission/quota.ts";
import { ConnectionExpiry } from "./connection-expiry.ts";
import type { ConnectionRecord, Connections, ReclaimingConnection } from "./connections.ts";
import { type ConnectionJournal, journalEntry } from "./journal-entry.ts";
import type { Steps } from "./measured-steps.ts";
import { findUnknown, type OnwardDeps, requestingFor } from "./request-onward.ts";
import type { SegmentNames } from "./segment-names.ts";

/** Waits between tries to release what resisted. */
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 30_000;

/** What taking a connection down touches. */
export interface TeardownDeps extends OnwardDeps {
  readonly connections: Connections;
  readonly turns: KeyedQueue<string>;
  readonly steps: Steps;
  readonly monitor: MonitorHub;
  readonly journal: ConnectionJournal;
  readonly names: Pick<SegmentNames, "changed">;
  /** Spreads retries; the machine's randomness by default. */
  readonly spread?: () => number;
  readonly clock: Clock;
  readonly log: Log;
}

/** Why a connection ends; for the log. */
type TeardownReason = "closed" | "failed" | "expired" | "reselected" | "superseded" | "pod-gone" | "retried";

/** What came of a teardown; all of it is in the log. `resists`: what the node has is still held, and another try is due. */
export type TeardownOutcome =
  | { readonly kind: "ended" }
  | { readonly kind: "endpoint-not-closed"; readonly error: unknown }
  | { readonly kind: "resists"; readonly error: unknown };

/**
 * The one way out of a connection: for each `TeardownReason`. Runs serialized with all else of the connection. Every part is tried
 * whatever the others do, and may be tried again: what is clean is not touched twice. While the node part resists, the record stays, and
 * no other client gets its VF. Never throws.
 */
export async function takeDown(
  deps: TeardownDeps,
  record: ConnectionRecord,
  reason: TeardownReason,
): Promise<TeardownOutcome> {
  const state = startReclaiming(record, deps);
  record.expiry.cancel();
  record.watch?.stop();
  record.watch = undefined;
  const fields = { connection: record.id, reason };
  const logUnwritten = (error: unknown) => deps.log.error("journal-not-written", { ...fields, error: textOf(error) });
  if (state.attachment) await deps.journal.put(journalEntry(record, state, "reclaiming")).catch(logUnwritten);
  const [node, endpoint] = await Promise.allSettled([releaseNode(deps, state), closeOnward(deps, record, state)]);
  deps.monitor.remove(record.id);
  if (endpoint.status === "rejected") {
    deps.log.warn("endpoint-close-failed", { ...fields, error: textOf(endpoint.reason) });
  }
  if (node.status === "rejected") {
    const retryMs = Math.round(state.retries.nextMs());
    record.expiry.restart(retryMs);
    deps.log.error("teardown-failed", { ...fields, error: textOf(node.reason), retryMs });
    return { kind: "resists", error: node.reason };
  }
  deps.connections.delete(record.id);
  deps.names.changed(record.id);
  await deps.journal.drop(record.id).catch(logUnwritten);
  deps.log.info("connection-ended", fields);
  return endpoint.status === "rejected" ? { kind: "endpoint-not-closed", error: endpoint.reason } : { kind: "ended" };
}

interface TeardownInTurn {
  readonly reason: TeardownReason;
  /** Those of a call that names the client's namespace. */
  readonly files?: PassedFilesOfCall;
  /** Of the caller that waits for it. */
  readonly signal?: AbortSignal;
}

/**
 * Takes a connection down for a reason of our own, serialized with all else of it.
 * @throws the signal's reason, when it was aborted before.
 */
export async function takeDownInTurn(
  deps: TeardownDeps,
  record: ConnectionRecord,
  { reason, files, signal }: TeardownInTurn,
): Promise<void> {
  const inTurn = async () => {
    if (deps.connections.get(record.id) !== record) return; // Closed while this waited.
    if (files && signal) await receiveFiles(deps, record, { files, signal });
    await takeDown(deps, record, reason);
  };
  await deps.turns.run(record.id, inTurn, signal);
}

/**
 * After a restart of ours the client's namespace comes with its next call. Without it the VF can be restored only when that
 * namespace ends: the teardown says so, and is tried again.
 */
export async function receiveFiles(
  { log }: Pick<TeardownDeps, "log">,
  { id, state }: ConnectionRecord,
  { files, signal }: { readonly files: PassedFilesOfCall; readonly signal: AbortSignal },
): Promise<void> {
  const notReceived = (error: unknown) => log.debug("files-not-received", { connection: id, error: textOf(error) });
  await state.attachment?.receiveFiles(files, signal).catch(notReceived);
}

/** Adds a record; its time, once it is set, ends it. */
export function addConnection(
  deps: TeardownDeps,
  counted: Held,
  content: Pick<ConnectionRecord, "client" | "state">,
): ConnectionRecord {
  const expiry = new ConnectionExpiry(deps.clock, () => void endOverdue(deps, record));
  const record: ConnectionRecord = { ...counted, ...content, expiry, watch: undefined };
  deps.connections.set(record.id, record);
  return record;
}

/** Serialized: a refresh that was running when the time was up has started it again. */
async function endOverdue(deps: TeardownDeps, record: ConnectionRecord): Promise<void> {
  await deps.turns.run(record.id, async () => {
    if (deps.connections.get(record.id) !== record || !record.expiry.isDue) return;
    await takeDown(deps, record, record.state.phase === "reclaiming" ? "retried" : "expired");
  });
}

/** Nothing is touched yet. Idempotent. */
export function startReclaiming(
  record: ConnectionRecord,
  { spread }: Pick<TeardownDeps, "spread">,
): ReclaimingConnection {
  if (record.state.phase === "reclaiming") return record.state;
  const { connection, desired, attachment, onward } = record.state;
  const retries = createBackoff({ firstMs: FIRST_RETRY_MS, limitMs: LONGEST_RETRY_MS, random: spread });
  const state = { phase: "reclaiming", connection, desired, attachment, onward, retries } as const;
  record.state = state;
  return state;
}

async function releaseNode({ steps }: TeardownDeps, state: ReclaimingConnection): Promise<void> {
  const { attachment } = state;
  if (attachment) await steps.run("release", () => attachment.release());
}

/** Tried once: an endpoint that cannot be reached ends its side by the expiry of our token. */
async function closeOnward(deps: TeardownDeps, record: ConnectionRecord, state: ReclaimingConnection): Promise<void> {
  const { onward: known, connection } = state;
  state.onward = undefined;
  const onward = known === "unknown" ? await findUnknown(deps, record, connection) : known;
  if (!onward) return;
  try {
    await closeAtEndpoint(requestingFor(deps, record), onward);
  } finally {
    onward.candidate.socket.release();
  }
}
