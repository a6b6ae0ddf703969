import { create, fromBinary } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../../gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../../gen/networkservice_pb.ts";
import { NsmError } from "../fault.ts";
import type { MechanismDriver } from "../mechanism/mechanism.ts";
import { mechanismChoices } from "../mechanism/requested-mechanism.ts";
import { sizeOf } from "../permission/quota.ts";
import { clientOf } from "./earlier-path.ts";
import type { JournalEntry } from "./journal-entry.ts";
import type { RequestDeps } from "./request.ts";
import { addConnection, startReclaiming } from "./teardown.ts";

/** At least this long a client has to come back after our restart, whatever its token says. */
const GRACE_MS = 60_000;

/**
 * Continues a connection that the previous instance served. Nothing is touched: the next Request proves that it is in force, and
 * brings the client's namespace; a Close or the end of its time takes it down. One that was half made or half taken down
 * is taken down at once, and again with the next call that brings the namespace.
 * @throws {NsmError} bad-value, unsupported-mechanism, cannot-give; what the mechanism throws.
 */
export function adoptAfterRestart(deps: RequestDeps, entry: JournalEntry): void {
  const { connectionId: id, owner, connection: bytes, expiresMs = 0 } = entry;
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
  record.expiry.restart(Math.max(expiresMs - deps.clock.now(), GRACE_MS));
  deps.monitor.update(owner, connection);
}

const noFiles = {
  receive: () => Promise.reject(new Error("No file comes with a connection that is only adopted")),
};
