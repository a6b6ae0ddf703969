// What follows for one VF from its record, its journal entry and what was observed of it. Pure: reads nothing, does nothing. All of
// it as a table: docs/decisions/041.

import { type BeforeClient, conditionOf, effectOf, type VfConditionCode, type VfRecord } from "../inventory/index.ts";
import type { VfEntry } from "../mechanisms/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import type { VfObservation } from "../pci/index.ts";
import type { Decision, Repair } from "./decision.ts";

/** One VF, as it is known from everywhere. */
export interface Subject {
  /** With what was found of it before, as conditions. Undefined where the inventory does not have the VF. */
  readonly record: VfRecord | undefined;
  readonly observed: VfObservation;
  /** Whether it is not any more as it was when it was restored a moment ago. */
  readonly hasDrifted: boolean;
  /** Whether the host's name for its network device, which another link had, can be had again. */
  readonly isNameFree: boolean;
  /** Whether a write that changes its driver hangs. */
  readonly hasStuckWrite: boolean;
  /** What the journal has of it: it is out, or was to be. */
  readonly entry: VfEntry | undefined;
  /** Its connection, as the previous instance left it in the journal and nothing has continued it yet. */
  readonly connection: JournalEntry | undefined;
  /** Whether this is the first pass, before anything is served. */
  readonly isStart: boolean;
  /** Whether this node has device cgroups, so that access can be given and revoked. */
  readonly canRevoke: boolean;
}

const leave: Decision = { kind: "leave" };
const repair = (which: Exclude<Repair, "forget">): Decision => ({ kind: "repair", repair: which });
const contradiction = (problem: string): Decision => ({ kind: "contradiction", problem });

/** The decision for one VF. What a client of this process has is never touched. */
export function decide(subject: Subject): Decision {
  const { record, entry } = subject;
  if (!record) return entry?.use === "vfio" ? contradiction("It is not among the VFs of this node") : { kind: "await" };
  if (conditionOf(record, "gone")) return leave; // whether it comes again, the kernel says
  const isUnsettled = subject.isStart || conditionOf(record, "unsettled") !== undefined;
  if (!isUnsettled && isMismatch(record, subject) && !["preparing", "reclaiming"].includes(record.state)) {
    return conditionOf(record, "mismatch") ? repair("rescan") : { kind: "observe-again", as: "mismatch" };
  }
  if (record.connectionId !== undefined) return decideHeld(record, subject);
  if (!entry) return decideFree(record, subject);
  return isUnsettled ? decideUnsettled(record, entry, subject) : decideOut(record, entry, subject);
}

/** Whether the inventory has something else of the VF than the node. */
export function isMismatch(record: VfRecord, { observed }: Pick<Subject, "observed">): boolean {
  return !observed.isPresent || observed.driver !== record.driver || observed.iommuGroup !== record.iommuGroup;
}

/** Whether it was compared with the journal, or is being, or is being restored. */
export function isSettled(record: VfRecord): boolean {
  const codes = ["unsettled", "contradicts-journal", "unexplained-grant", "drifted", "being-cleaned"] as const;
  return codes.some((code) => conditionOf(record, code) !== undefined);
}

/**
 * Whether no client may have it before it was tried to make it as the host had it: the previous instance could not, or died over it.
 * `before` is of the device of its kernel driver; undefined: nothing of that is known.
 */
export function isUnfinished(record: VfRecord, before: BeforeClient | undefined): boolean {
  if (record.connectionId !== undefined || (before && record.driver !== record.kernelDriver)) return false;
  const codes = ["not-as-before", "drifted", "netdev-missing", "being-cleaned"] as const;
  return !codes.some((code) => conditionOf(record, code) !== undefined);
}

/** Whether a repair may be due that has its driver make a network device, or bind it: no other VF waits for that. */
export function waitsForDriver(record: VfRecord | undefined, entry: VfEntry | undefined): boolean {
  if (!record || record.connectionId !== undefined) return false;
  if (entry?.use === "kernel") return true;
  return (["drifted", "netdev-missing", "write-stuck", "name-taken"] as const).some(
    (code) => conditionOf(record, code) !== undefined,
  );
}

/** A client's namespace that has ended gives the network device back to the host. */
function decideHeld(record: VfRecord, { observed }: Subject): Decision {
  return conditionOf(record, "pending-netns") && observed.hasNetdev ? repair("end-connection") : leave;
}

/** The journal says that it is out, and it was not compared with the node yet. */
function decideUnsettled(record: VfRecord, entry: VfEntry, subject: Subject): Decision {
  const { connection, observed, isStart, canRevoke } = subject;
  if (entry.use === "vfio") {
    const had = `A pod had it for connection ${entry.connectionId}`;
    if (!connection?.connection) return contradiction(`${had}, of which nothing else is known`);
    if (!isStart) return contradiction(`${had}, and it was away`);
    if (!canRevoke) return contradiction("This node cannot revoke access");
    return { kind: "adopt", stage: connection.stage };
  }
  if (entry.isLeft) return { kind: "clean-on" };
  const was = `It was out for connection ${entry.connectionId}`;
  if (!connection?.connection) return contradiction(`${was}, of which nothing else is known`);
  if (observed.driver !== record.kernelDriver) {
    return contradiction(`${was}, and is bound to ${observed.driver ?? "no driver"} now`);
  }
  const isEstablished = connection.stage === "ready" && !observed.hasNetdev;
  return { kind: "adopt", stage: isEstablished ? "ready" : "reclaiming" };
}

/** The journal says that it is out, and no connection holds it. */
function decideOut(record: VfRecord, entry: VfEntry, subject: Subject): Decision {
  if (isQuarantinedByOthers(record)) return decideQuarantined(record, subject);
  if (entry.use === "vfio") return subject.canRevoke ? repair("revoke") : leave;
  if (conditionOf(record, "host-use")) return leave;
  return entry.isLeft ? repair("restore") : restoring(record, subject);
}

/** Neither a connection nor the journal has it. */
function decideFree(record: VfRecord, subject: Subject): Decision {
  const { observed, hasDrifted, isNameFree, isStart } = subject;
  if (conditionOf(record, "host-use")) return leave; // it is the host's now
  if (conditionOf(record, "open-to-pod")) return subject.canRevoke ? repair("revoke") : leave;
  const isOnKernelDriver = observed.driver === record.kernelDriver;
  if (conditionOf(record, "netdev-missing")) {
    return observed.hasNetdev || !isOnKernelDriver ? repair("clean") : leave;
  }
  if (isQuarantinedByOthers(record)) return decideQuarantined(record, subject);
  if (conditionOf(record, "drifted")) return restoring(record, subject);
  if ((hasDrifted || isNameFree) && observed.hasNetdev) return repair("restore");
  if (!isOnKernelDriver || observed.hasNetdev) return leave;
  const isAgain = isStart || conditionOf(record, "netdev-unseen");
  return isAgain ? repair("quarantine") : { kind: "observe-again", as: "netdev-unseen" };
}

/** Its cause ends it. But a VF that has no driver since a write which hung has returned is ours to bind again. */
function decideQuarantined(record: VfRecord, { observed, hasStuckWrite }: Subject): Decision {
  const isUnbound = observed.driver === undefined && conditionOf(record, "write-stuck") !== undefined;
  return isUnbound && !hasStuckWrite ? repair("rebind") : leave;
}

function restoring(record: VfRecord, { observed }: Subject): Decision {
  if (observed.hasNetdev && observed.driver === record.kernelDriver) return repair("restore");
  return observed.driver === undefined ? repair("rebind") : leave;
}

/** What reconciling itself raises; what another module raised has a cause of its own, and that clears it. */
const own: readonly VfConditionCode[] = [
  "unsettled",
  "contradicts-journal",
  "unexplained-grant",
  "drifted",
  "netdev-missing",
];

function isQuarantinedByOthers({ conditions }: VfRecord): boolean {
  return conditions.some((one) => effectOf(one) === "quarantine" && !own.includes(one.code));
}
