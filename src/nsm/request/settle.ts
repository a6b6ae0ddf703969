import { create, toJson } from "@bufbuild/protobuf";
import type { Clock } from "../../async/index.ts";
import { type Connection, ConnectionSchema, MechanismSchema, State } from "../../gen/connection_pb.ts";
import { copyMessage } from "../../rpc/index.ts";
import type { Log } from "../../telemetry/index.ts";
import type { Onward, Requesting } from "../endpoint/try-candidates.ts";
import { watchEndpoint } from "../endpoint/watch-endpoint.ts";
import { textOf } from "../fault.ts";
import { toStatus } from "../grpc-status.ts";
import type { Attachment } from "../mechanism/mechanism.ts";
import { type DesiredMechanism, type MechanismChoice, PARAMETER } from "../mechanism/requested-mechanism.ts";
import type { MonitorHub } from "../monitor/monitor.ts";
import { ownSegment, withoutTokens } from "../path.ts";
import type { AdmittedCaller } from "../permission/authorize.ts";
import { isSameActing, type ManagerSource, type Owner, ownerFor } from "../permission/connection-owner.ts";
import type { ConnectionQuota } from "../permission/connection-quota.ts";
import { sizeOf } from "../permission/quota.ts";
import { lifetimeMs } from "./connection-expiry.ts";
import type { ConnectionRecord } from "./connections.ts";
import { type ConnectionJournal, journalEntry } from "./journal-entry.ts";
import { requestingFor } from "./request-onward.ts";
import type { SegmentNames } from "./segment-names.ts";

/** What an established connection is written into. */
export interface SettleDeps {
  readonly manager: ManagerSource;
  readonly monitor: MonitorHub;
  readonly journal: ConnectionJournal;
  readonly names: Pick<SegmentNames, "changed">;
  readonly quota: Pick<ConnectionQuota, "check">;
  readonly requesting: Requesting;
  readonly clock: Clock;
  readonly log: Log;
}

/** What has just been served. */
export interface Served {
  readonly choice: MechanismChoice;
  readonly desired: DesiredMechanism;
  readonly attachment: Attachment;
  readonly onward: Onward;
  readonly caller: AdmittedCaller;
  readonly callerDeadlineMs: number | undefined;
}

/** The end of every Request that worked: the connection is kept, published, watched, and given its time. */
export async function settle(deps: SettleDeps, record: ConnectionRecord, served: Served): Promise<void> {
  const { desired, attachment, onward, caller, callerDeadlineMs } = served;
  const before = record.state.phase === "established" ? record.state.connection : undefined;
  const connection = resultOf(served);
  const owner = ownerFor(caller.acting, deps.manager, record.owner);
  const nowMs = deps.clock.now();
  const lifeMs = lifetimeMs({ nowMs, tokenExpiresMs: caller.tokenExpiresMs, callerDeadlineMs });
  const isOwnerNew = !isSameOwner(record.owner, owner);
  // Before anything is published: what cannot be kept is not established. A refresh of the same writes nothing, but for the first since our start.
  const isChanged = !before || record.isUnheard || isOwnerNew || contentOf(before) !== contentOf(connection);
  if (isChanged) {
    const entry = journalEntry({ id: record.id, owner }, { desired, connection }, "ready");
    await deps.journal.put({ ...entry, expiresMs: nowMs + lifeMs });
  }
  record.owner = owner;
  record.isUnheard = false;
  record.state = { phase: "established", connection, desired, attachment, onward };
  if (isChanged) deps.names.changed(record.id);
  record.expiry.restart(lifeMs);
  deps.monitor.update(record.owner, connection, record.id);
  listen(deps, record, { connection, onward });
}

function isSameOwner(a: Owner, b: Owner): boolean {
  return a.isManager === b.isManager && isSameActing(a, b);
}

/** Notifies watchers that a connection could not be confirmed, unless it was only the caller who went away. */
export function showDown(deps: SettleDeps, record: ConnectionRecord, error: unknown): void {
  if (toStatus(error).code === "CANCELLED") return;
  const down = copyMessage(record.state.connection);
  down.state = State.DOWN;
  deps.log.warn("refresh-failed", { connection: record.id, error: textOf(error) });
  deps.monitor.update(record.owner, down, record.id);
}

/** The endpoint's word about the connection, with the client's mechanism and what we add to it. */
function resultOf({ choice, onward, attachment }: Served): Connection {
  const connection = copyMessage(onward.connection);
  const { cls, type, parameters } = choice.mechanism;
  connection.mechanism = create(MechanismSchema, {
    cls,
    type,
    parameters: { ...parameters, ...attachment.parameters },
  });
  connection.state = State.UP;
  ownSegment(connection).metrics["server_interface"] = `${type}/${parameters[PARAMETER.interfaceName] ?? ""}`;
  return connection;
}

function listen(
  deps: SettleDeps,
  record: ConnectionRecord,
  { connection, onward }: { readonly connection: Connection; readonly onward: Onward },
): void {
  const { candidate } = onward;
  const { target } = candidate.socket;
  // It is at this endpoint: keepOnward has stopped that of a former one.
  if (record.watch?.isAlive) {
    record.watch.rebase(connection);
    return;
  }
  record.watch?.stop();
  const fields = { connection: record.id, endpoint: candidate.name };
  record.watch = watchEndpoint(requestingFor(deps, record), target, {
    connection,
    listener: {
      admits: (changed) => admits(deps, record, changed),
      changed: (changed) => deps.monitor.update(record.owner, changed, record.id),
      lost: (error) => deps.log.warn("endpoint-lost", { ...fields, error: error ? textOf(error) : "stream ended" }),
    },
  });
}

/** What an endpoint reports of a connection counts for the connection's owner as its answers do. */
function admits({ quota }: SettleDeps, record: ConnectionRecord, changed: Connection): boolean {
  const bytes = sizeOf(changed);
  try {
    quota.check({ ...record, bytes });
  } catch {
    return false; // counted and logged there
  }
  record.bytes = bytes;
  return true;
}

/** What the connection says apart from tokens, times and metrics, which change with each refresh; as comparable text. */
function contentOf(connection: Connection): string {
  const copy = withoutTokens(connection, "and their times");
  for (const segment of copy.path?.pathSegments ?? []) segment.metrics = {};
  // Go peers send maps in any order.
  return JSON.stringify(toJson(ConnectionSchema, copy), (_key, value: unknown) =>
    value !== null && typeof value === "object" && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
}
