import { create, fromBinary } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../../gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../../gen/networkservice_pb.ts";
import { NsmError, textOf } from "../fault.ts";
import type { MechanismDriver } from "../mechanism/mechanism.ts";
import { mechanismChoices } from "../mechanism/requested-mechanism.ts";
import { sizeOf } from "../permission/quota.ts";
import type { ConnectionRecord } from "./connections.ts";
import { clientOf } from "./earlier-path.ts";
import type { JournalEntry } from "./journal-entry.ts";
import type { RequestDeps } from "./received-request.ts";
import { addConnection, startReclaiming } from "./teardown.ts";

/**
 * So much longer than tokens live a client has to come back after our restart, and so long after each further one: who is gone is not kept
 * for ever where we do not live as long as a token. The journal has the time of a connection as of its last
 * change, not of its last refresh; and a manager that cannot find us by the name that it remembers asks by another one only when its own
 * time of the connection is up: docs/decisions/052.
 */
const GRACE_MS = 60_000;

/**
 * Continues a connection that the previous instance served. Nothing is touched: the next Request proves that it is in force, and
 * brings the client's namespace; a Close or the end of its time takes it down. One that was half made or half taken down
 * is taken down at once, and again with the next call that brings the namespace.
 * @throws {NsmError} bad-value, unsupported-mechanism, cannot-give; what the mechanism throws.
 */
export function adoptAfterRestart(deps: RequestDeps, entry: JournalEntry): void {
  const { connectionId: id, owner, connection: bytes } = entry;
  if (!bytes)
    throw new NsmError({ kind: "bad-value", what: "the journal's connection", value: id, desired: "its answer" });
  // Its client has come back already, and gets from the node what is its own.
  if (deps.connections.has(id)) return;
  const connection = fromBinary(ConnectionSchema, bytes);
  const [choice] = mechanismChoices(create(NetworkServiceRequestSchema, { connection }));
  if (!choice) throw new NsmError({ kind: "unsupported-mechanism" });
  const desired = choice.read();
  const driver: MechanismDriver | undefined = deps.mechanisms[desired.type];
  if (!driver) throw new NsmError({ kind: "cannot-give", mechanism: desired.type });
  const attachment = driver.adopt({ connectionId: id, desired, files: noFiles, signal: new AbortController().signal });
  // What was kept stays, whatever its owner may have now.
  const counted = { id, owner, holdsVf: desired.type !== "NOOP", bytes: sizeOf(connection) };
  const onward = connection.networkServiceEndpointName === "" ? undefined : "unknown";
  const state = { phase: "established", connection, desired, attachment, onward } as const;
  const record = addConnection(deps, counted, { client: clientOf(connection), state });
  if (entry.stage !== "ready") {
    startReclaiming(record, deps);
    record.expiry.restart(0);
    return;
  }
  deps.names.changed(record.id);
  waitForClient(deps, record, entry);
  deps.monitor.update(owner, connection, id);
}

function waitForClient(deps: RequestDeps, record: ConnectionRecord, entry: JournalEntry): void {
  const { expiresMs = 0 } = entry;
  const nowMs = deps.clock.now();
  // The clock of the machine may have been set back.
  const unheardMs = Math.min(entry.unheardMs ?? nowMs, nowMs);
  const untilMs = Math.max(expiresMs, unheardMs + deps.tokenLifetimeMs + GRACE_MS, nowMs + GRACE_MS);
  record.isUnheard = true;
  record.expiry.restart(untilMs - nowMs);
  if (unheardMs === entry.unheardMs) return;
  const unwritten = (error: unknown) =>
    deps.log.error("journal-not-written", { connection: record.id, error: textOf(error) });
  void deps.journal.put({ ...entry, unheardMs }).catch(unwritten);
}

const noFiles = {
  receive: () => Promise.reject(new Error("No file comes with a connection that is only adopted")),
};
