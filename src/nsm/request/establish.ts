// A connection that is new, or whose mechanism is.
import { both } from "../../async/index.ts";
import type { Offer } from "../endpoint/find-endpoints.ts";
import { NsmError } from "../fault.ts";
import type { MechanismDriver } from "../mechanism/mechanism.ts";
import { PARAMETER } from "../mechanism/requested-mechanism.ts";
import { ownerFor } from "../permission/connection-owner.ts";
import { sizeOf } from "../permission/quota.ts";
import { type ConnectionContent, type ConnectionRecord, onwardOf } from "./connections.ts";
import { clientOf, endHolder } from "./earlier-path.ts";
import { journalEntry } from "./journal-entry.ts";
import {
  mechanismRequest,
  onwardQuestion,
  type ReceivedRequest,
  type RequestDeps,
  type Way,
} from "./received-request.ts";
import { findEndpoints, keepOnward, keptEndpoint, releaseOffer, requestOnward } from "./request-onward.ts";
import { settle } from "./settle.ts";
import { addConnection, receiveFiles, takeDown } from "./teardown.ts";

/** A connection that is new, or whose mechanism is: everything is undone if any step fails. */
export async function establish(deps: RequestDeps, request: ReceivedRequest, way: Way): Promise<ConnectionRecord> {
  const { desired } = way;
  const driver: MechanismDriver | undefined = deps.mechanisms[desired.type];
  if (!driver) throw new NsmError({ kind: "cannot-give", mechanism: desired.type });
  const startedMs = deps.clock.monotonicMs();
  const content = { connection: { ...request.connection, mechanism: way.choice.mechanism }, desired };
  const record = openRecord(deps, request, content);
  try {
    await establishWith(deps, request, { ...way, driver, record, content });
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
  { key: id, connection, caller }: ReceivedRequest,
  content: Pick<ConnectionContent, "connection" | "desired">,
): ConnectionRecord {
  const owner = ownerFor(caller.acting, deps.manager);
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

async function establishWith(deps: RequestDeps, request: ReceivedRequest, establishing: Establishing): Promise<void> {
  const { driver, record, content, choice, desired } = establishing;
  const { connection, caller, call, files, signal } = request;
  const kept = keptEndpoint(record, connection);
  // Of the mechanism before; one connection has one. After a restart of ours it may need the client's namespace for that. Before the new one
  // is opened: with the same token both are one VF, which no driver gives to the client twice. Where the new one fails the client has none, and
  // its next Request begins again.
  await receiveFiles(deps, record, { files, signal });
  const former = record.state.attachment;
  if (former) await deps.steps.run("release", () => former.release());
  record.state = { phase: "opening", ...content, attachment: undefined, onward: record.state.onward };
  // Touches nothing, and refuses a token that is none: that must not cost a write.
  const open = () => driver.open(mechanismRequest(request, desired));
  const attachment = await open().catch(async (refusal: unknown) => {
    await endHolder(deps, request, refusal);
    return await open();
  });
  const find = async (either: AbortSignal) =>
    kept ? undefined : await findEndpoints(deps, record, { connection, signal: either });
  const drop = (found: Offer | undefined) => releaseOffer(found?.candidates ?? []);
  // Where nothing of the node is held nothing is begun until an endpoint gets the Request: to find none costs no write.
  const found = record.holdsVf || former ? undefined : await find(signal);
  record.state = { ...record.state, attachment };
  await deps.journal.put(journalEntry(record, content, "preparing")).catch((error: unknown) => {
    drop(found);
    throw error;
  });
  const [offer] = await both(
    signal,
    { run: async (either) => found ?? (await find(either)), drop },
    {
      run: (either) =>
        deps.steps.run("prepare", () => attachment.prepare({ ...mechanismRequest(request, desired), signal: either })),
    },
  );
  const onward = await requestOnward(deps, record, { ...onwardQuestion(deps, request), offer });
  keepOnward(deps, record, onward);
  await deps.steps.run("apply", () => attachment.apply(mechanismRequest(request, desired), onward.connection.context));
  signal.throwIfAborted();
  await settle(deps, record, { choice, desired, attachment, onward, caller, callerDeadlineMs: call.deadlineMs });
}
