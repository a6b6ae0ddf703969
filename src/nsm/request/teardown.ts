import { type Clock, type KeyedQueue, startDeadline } from "../../async/index.ts";
import type { Log } from "../../telemetry/index.ts";
import { closeAtEndpoint, type Onward } from "../endpoint/endpoint-client.ts";
import { findEndpoints, type OnwardDeps } from "../endpoint/next-endpoint.ts";
import { NsmError, textOf } from "../fault.ts";
import type { MonitorHub } from "../monitor/monitor.ts";
import type { ConnectionJournal } from "../needs.ts";
import type { Owner } from "../permission/connection-owner.ts";
import { type ConnectionRecord, type Connections, openRecord } from "./connections.ts";
import { Expiry } from "./expiry.ts";
import { journalEntry } from "./journal-entry.ts";

/** Waits between tries to bring home what resisted. */
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 30_000;

const FIND_LIMIT_MS = 5_000;

/** What taking a connection down touches. */
export interface TeardownDeps extends OnwardDeps {
  readonly connections: Connections;
  readonly turns: KeyedQueue<string>;
  readonly monitor: MonitorHub;
  readonly journal: ConnectionJournal;
  readonly clock: Clock;
  readonly log: Log;
}

/** Why a connection ends; for the log. */
export type TeardownReason = "closed" | "failed" | "expired" | "reselected" | "superseded" | "pod-gone" | "retried";

/**
 * The one way out of a connection: for Close, a failed Request, expiry, reselect, a lost mechanism. Runs in the
 * connection's turn. Every part is tried whatever the others do, and may be tried again: what is clean is not touched
 * twice. While the node part resists, the record stays, nobody else gets its VF, and another try is due.
 * @throws {NsmError} teardown-failed (it will be tried again), or endpoint-close-failed (our side is clean).
 */
export async function takeDown(deps: TeardownDeps, record: ConnectionRecord, reason: TeardownReason): Promise<void> {
  record.phase = "reclaiming";
  record.expiry.cancel();
  record.watch?.stop();
  record.watch = undefined;
  const fields = { connection: record.id, reason };
  const tellJournal = (error: unknown) => deps.log.error("journal-not-written", { ...fields, error: textOf(error) });
  // A later process finds the VF and the endpoint by what was begun, not by what stood before.
  const entry = journalEntry({ ...record, ...record.begun }, "reclaiming");
  if (record.attachment) await deps.journal.put(entry).catch(tellJournal);
  const [node, endpoint] = await Promise.allSettled([releaseNode(record), closeOnward(deps, record)]);
  deps.monitor.remove(record.id);
  if (endpoint.status === "rejected") {
    deps.log.warn("endpoint-close-failed", { ...fields, error: textOf(endpoint.reason) });
  }
  if (node.status === "rejected") {
    const retryMs = retryLater(record);
    deps.log.error("teardown-failed", { ...fields, error: textOf(node.reason), retryMs });
    throw new NsmError({ kind: "teardown-failed", failures: [{ part: "node", error: node.reason }] });
  }
  deps.connections.delete(record.id);
  await deps.journal.drop(record.id).catch(tellJournal);
  deps.log.info("connection-ended", fields);
  if (endpoint.status === "rejected") throw new NsmError({ kind: "endpoint-close-failed", failure: endpoint.reason });
}

interface TeardownInTurn {
  readonly reason: TeardownReason;
  readonly meet?: () => Promise<void> | undefined;
  /** Of whoever waits for it. */
  readonly signal?: AbortSignal;
}

/**
 * Takes a connection down for a reason of our own, in its turn; `meet` brings what it needs for that. What fails is logged
 * and tried again, never thrown.
 * @throws the signal's reason, when the turn did not come before.
 */
export async function takeDownInTurn(
  deps: TeardownDeps,
  record: ConnectionRecord,
  { reason, meet, signal }: TeardownInTurn,
): Promise<void> {
  const inTurn = async () => {
    if (deps.connections.get(record.id) !== record) return; // Closed while this waited.
    await meet?.()?.catch(() => {}); // The teardown says what it lacks.
    await takeDown(deps, record, reason).catch(() => {}); // Told and retried above.
  };
  await deps.turns.run(record.id, inTurn, signal);
}

/** A new record that holds nothing yet; its time, once it is set, ends it. */
export function addConnection(deps: TeardownDeps, id: string, owner: Owner): ConnectionRecord {
  const expiry = new Expiry(deps.clock, () => void endOverdue(deps, record));
  const record = openRecord(id, owner, expiry);
  deps.connections.set(id, record);
  return record;
}

/** In its turn: a refresh that was running when the time was up has started it anew. */
async function endOverdue(deps: TeardownDeps, record: ConnectionRecord): Promise<void> {
  await deps.turns.run(record.id, async () => {
    if (deps.connections.get(record.id) !== record || !record.expiry.isDue) return;
    const reason = record.phase === "reclaiming" ? "retried" : "expired";
    await takeDown(deps, record, reason).catch(() => {}); // Told and retried above.
  });
}

/** Gives back what the connection holds of this node, and nothing else. */
export async function releaseNode(record: ConnectionRecord): Promise<void> {
  await record.attachment?.release();
  record.attachment = undefined;
}

/** Tried once: an endpoint that cannot be told ends its side by the expiry of our token. */
async function closeOnward(deps: TeardownDeps, record: ConnectionRecord): Promise<void> {
  const onward = record.onward ?? (await findUnknown(deps, record));
  record.onward = undefined;
  record.hasUnknownEndpoint = false;
  if (!onward) return;
  try {
    await closeAtEndpoint(deps.asking, onward);
  } finally {
    onward.candidate.socket.release();
  }
}

/** The endpoint that an earlier process of ours asked for this connection (W24). */
async function findUnknown(deps: TeardownDeps, record: ConnectionRecord): Promise<Onward | undefined> {
  const { connection, hasUnknownEndpoint } = record;
  if (!connection || !hasUnknownEndpoint) return undefined;
  record.hasUnknownEndpoint = false;
  const deadline = startDeadline(deps.clock, FIND_LIMIT_MS, { what: "the search for the endpoint" });
  try {
    const offer = await findEndpoints(deps, connection, deadline.signal);
    // It is asked for by name, so there is no second one.
    const [candidate] = offer.candidates;
    return candidate && { candidate, connection, mechanism: undefined };
  } finally {
    deadline.end();
  }
}

function retryLater(record: ConnectionRecord): number {
  const retryMs = Math.min(FIRST_RETRY_MS * 2 ** record.failedTries, LONGEST_RETRY_MS);
  record.failedTries += 1;
  record.expiry.restart(retryMs);
  return retryMs;
}
