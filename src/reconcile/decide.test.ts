// The whole of what is decided, as the table of docs/decisions/041.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { BeforeClient, VfCondition, VfRecord } from "../inventory/index.ts";
import type { VfEntry } from "../mechanisms/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import type { VfObservation } from "../pci/index.ts";
import { decide, type Subject } from "./decide.ts";
import type { Decision } from "./decision.ts";

const PAGE = "docs/decisions/041-one-record-for-a-vf.md";
const record = {
  state: "idle",
  driver: "igbvf",
  kernelDriver: "igbvf",
  iommuGroup: 7,
  conditions: [],
  connectionId: undefined,
} as unknown as VfRecord;

/** What was observed of it, by column. */
const columns: Readonly<Record<string, VfObservation>> = {
  "in the host": { isPresent: true, driver: "igbvf", iommuGroup: 7, hasNetdev: true },
  "not in the host": { isPresent: true, driver: "igbvf", iommuGroup: 7, hasNetdev: false },
  "no driver": { isPresent: true, driver: undefined, iommuGroup: 7, hasNetdev: false },
  "vfio-pci": { isPresent: true, driver: "vfio-pci", iommuGroup: 7, hasNetdev: false },
  absent: { isPresent: false, driver: undefined, iommuGroup: undefined, hasNetdev: false },
};

interface Situation extends Partial<Omit<Subject, "record" | "observed" | "entry" | "connection">> {
  readonly record?: Partial<VfRecord>;
  readonly entry?: "kernel" | "left" | "vfio";
  readonly connection?: JournalEntry["stage"];
  /** The inventory has the driver and the group that it had before. */
  readonly isStale?: boolean;
}

const under = (...conditions: readonly VfCondition[]): Partial<VfRecord> => ({ conditions });
const ready = { state: "ready", connectionId: "c1" } as const;
const before = { connectionId: "c1" } as BeforeClient;
const contradicting = under({ code: "contradicts-journal", error: "" });
const unsettled = under({ code: "unsettled", connectionId: "c1" });
const stuck = { code: "write-stuck", error: "" } as const;
const foreign = { code: "foreign-link", error: "" } as const;
const hostUse = { code: "host-use", how: "" } as const;

const situations: Readonly<Record<string, Situation>> = {
  "start: KERNEL, established": { isStart: true, entry: "kernel", connection: "ready" },
  "start: KERNEL, half done": { isStart: true, entry: "kernel", connection: "preparing" },
  "start: KERNEL, connection unknown": { isStart: true, entry: "kernel" },
  "start: KERNEL, left by its client": { isStart: true, entry: "left", connection: "reclaiming" },
  "start: VFIO, established": { isStart: true, entry: "vfio", connection: "ready" },
  "start: VFIO, half done": { isStart: true, entry: "vfio", connection: "reclaiming" },
  "start: VFIO, connection unknown": { isStart: true, entry: "vfio" },
  "start: VFIO, no cgroups": { isStart: true, entry: "vfio", connection: "ready", canRevoke: false },
  "start: free": { isStart: true },
  "late: KERNEL, established": { record: unsettled, entry: "kernel", connection: "ready" },
  "late: KERNEL, connection unknown": { record: unsettled, entry: "kernel" },
  "late: VFIO": { record: unsettled, entry: "vfio", connection: "ready" },
  "held by a connection": { record: ready },
  "held, namespace pending": { record: { ...ready, ...under({ code: "pending-netns", ending: "not" }) } },
  "held, a Request under way": { record: { ...ready, state: "preparing" }, isStale: true },
  free: {},
  "free, not in the host before": { record: under({ code: "netdev-unseen" }) },
  "free, changed a moment ago": { hasDrifted: true },
  "free, its name is free again": { isNameFree: true },
  "free, used by the host": { record: under(hostUse), hasDrifted: true, isNameFree: true },
  "free, open to a pod of before": { record: under({ code: "open-to-pod", pods: ["uid"] }) },
  "free, quarantined for another cause": { record: under(foreign), hasDrifted: true },
  "free, a write hangs": { record: under(stuck), hasStuckWrite: true },
  "free, a write has hung": { record: under(stuck) },
  "network device missing": { record: under({ code: "netdev-missing" }) },
  drifted: { record: under({ code: "drifted", before }) },
  "KERNEL, held by none": { entry: "kernel" },
  "KERNEL, contradicting": { record: contradicting, entry: "kernel", connection: "ready" },
  "KERNEL, quarantined for another cause": { record: under(foreign), entry: "kernel" },
  "KERNEL, a write has hung": { record: under(stuck), entry: "kernel" },
  "KERNEL, used by the host": { record: under(hostUse), entry: "kernel" },
  "KERNEL, left by its client": { record: under({ code: "being-cleaned" }), entry: "left" },
  "KERNEL, left, failed before": { record: under({ code: "drifted", before }), entry: "left" },
  "VFIO, held by none": { record: under({ code: "unexplained-grant", error: "" }), entry: "vfio" },
  "VFIO, no cgroups": { entry: "vfio", canRevoke: false },
  gone: { record: under({ code: "gone" }), isStale: true },
  "other than in the inventory": { isStale: true },
  "other, the second time": { isStale: true, record: under({ code: "mismatch", isRescanned: false }) },
};

function entryOf(which: "kernel" | "left" | "vfio"): VfEntry {
  const entry = which === "left" ? { use: "kernel", isLeft: true } : { use: which };
  return { ...entry, connectionId: "c1" } as VfEntry;
}

function subjectOf(situation: Situation, observed: VfObservation): Subject {
  const { record: change, entry, connection, isStale = false, ...rest } = situation;
  const { driver, iommuGroup } = observed;
  const isKnown = observed.isPresent || isStale;
  const known = { ...record, ...(isStale ? {} : { driver, iommuGroup }), ...change } as VfRecord;
  return {
    isStart: false,
    canRevoke: true,
    hasDrifted: false,
    isNameFree: false,
    hasStuckWrite: false,
    ...rest,
    record: isKnown ? known : undefined,
    observed,
    entry: entry && entryOf(entry),
    connection: connection && ({ stage: connection, connection: Buffer.of(1) } as unknown as JournalEntry),
  };
}

function wordsOf(decision: Decision): string {
  switch (decision.kind) {
    case "leave":
      return "–";
    case "observe-again":
      return "look again";
    case "await":
      return "await";
    case "adopt":
      return `continue: ${decision.stage}`;
    case "contradiction":
      return "contradiction";
    case "clean-on":
      return "clean on";
    case "repair":
      return decision.repair;
  }
}

/** The table as it is to be on the page. */
function printed(): string {
  const rows = Object.entries(situations).map(([says, situation]) => {
    const cells = Object.values(columns).map((observed) => wordsOf(decide(subjectOf(situation, observed))));
    return `| ${[says, ...cells].join(" | ")} |`;
  });
  const names = Object.keys(columns);
  return [`| situation | ${names.join(" | ")} |`, `|${" --- |".repeat(names.length + 1)}`, ...rows].join("\n");
}

test("decide() does what the table of the decision page says", () => {
  const table = /^\| situation[\s\S]*?(?=\n\n)/m.exec(readFileSync(PAGE, "utf8"))?.[0];
  assert.equal(table, printed(), `the table of ${PAGE} is to be:\n${printed()}`);
});

test("decide() names what contradicts the journal", () => {
  const problem = (situation: Situation, column: string) => {
    const decision = decide(subjectOf(situation, columns[column] ?? assert.fail(column)));
    return decision.kind === "contradiction" ? decision.problem : undefined;
  };
  const kernel = { isStart: true, entry: "kernel", connection: "ready" } as const;
  assert.equal(problem(kernel, "vfio-pci"), "It was out for connection c1, and is bound to vfio-pci now");
  assert.equal(problem(kernel, "no driver"), "It was out for connection c1, and is bound to no driver now");
  const vfio = { isStart: true, entry: "vfio" } as const;
  assert.equal(problem(vfio, "vfio-pci"), "A pod had it for connection c1, of which nothing else is known");
  assert.equal(problem(vfio, "absent"), "It is not among the VFs of this node");
});

test("decide() takes a lost IOMMU group for another than in the inventory", () => {
  const observed = { ...(columns["in the host"] ?? assert.fail()), iommuGroup: undefined };
  assert.deepEqual(decide(subjectOf({ isStale: true }, observed)), { kind: "observe-again", as: "mismatch" });
});

test("decide() takes a driver that changes while a connection takes a VF or gives it back for its own doing", () => {
  const observed = columns["no driver"] ?? assert.fail();
  const decided = (["preparing", "reclaiming", "ready"] as const).map((state) =>
    wordsOf(decide(subjectOf({ record: { ...ready, state }, isStale: true }, observed))),
  );
  assert.deepEqual(decided, ["–", "–", "look again"]);
});

test("decide() takes a VF that is absent for another than in the inventory, though it had neither a driver nor a group", () => {
  const bare = { driver: undefined, iommuGroup: undefined };
  const decision = decide(subjectOf({ isStale: true, record: bare }, columns["absent"] ?? assert.fail()));
  assert.deepEqual(decision, { kind: "observe-again", as: "mismatch" });
});

test("decide() leaves a VF that was out and whose network device is another driver's", () => {
  const observed = { isPresent: true, driver: "other", iommuGroup: 7, hasNetdev: true };
  assert.equal(wordsOf(decide(subjectOf({ entry: "kernel" }, observed))), "–");
});
