import assert from "node:assert/strict";
import { test } from "node:test";
import type { DeviceAccess, GrantState } from "../access/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import { type DriverBinder, Inventory, type PciAddress, parsePciAddress } from "../sriov/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { KeptVfio } from "../vf/connection-journal.ts";
import { recoverVfio } from "./recover-vfio.ts";

const PF = parsePciAddress("01:00.0");
const [first, second] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.2")];
const RESOURCE = "d/x";
const grant: GrantState = {
  connectionId: "c1",
  podUid: "uid-1",
  containers: "*",
  devices: [{ major: 245, minor: 0 }],
  wrote: [],
};

interface Found {
  readonly stage?: JournalEntry["stage"];
  /** Whether the journal knows the connection of its function. */
  readonly hasConnection?: boolean;
  readonly hasFunction?: boolean;
  /** Whether the pod has the second one too. */
  readonly hasBoth?: boolean;
  readonly access?: Error;
}

/** A node of two functions under vfio-pci, of which a pod has the first one. */
async function recovered({
  stage = "ready",
  hasConnection = true,
  hasFunction = true,
  hasBoth = false,
  access,
}: Found) {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf: PF, numaNode: undefined, kernelDriver: "igbvf", driver: "vfio-pci", resources: [RESOURCE] };
  const facts = [first, second].map((address, index) => ({ ...common, address, index, iommuGroup: index }));
  inventory.sync(PF, hasFunction ? facts : facts.slice(1));
  const tokenId = inventory.devicesOf(RESOURCE)[0]?.id ?? "";
  const kept: KeptVfio = {
    use: "vfio",
    address: first,
    connectionId: "c1",
    tokenId,
    owner: "uid-1",
    grant,
    before: {},
  };
  const owner = { spiffeId: "spiffe://d/manager", isManager: true };
  const common2 = { owner, stage, mechanism: "VFIO", connection: Buffer.of(1) } as const;
  const entries: JournalEntry[] = [
    ...(hasConnection ? [{ ...common2, connectionId: "c1" }] : []),
    { ...common2, connectionId: "untouched" },
    { ...common2, connectionId: "kernel", mechanism: "KERNEL" },
  ];
  const done: string[] = [];
  const journal = {
    connections: entries,
    vfioVfs: new Map<PciAddress, KeptVfio>([
      [first, kept],
      ...(hasBoth ? [[second, { ...kept, address: second, connectionId: "untouched" }] as const] : []),
    ]),
    keepVf: async () => {},
    drop: async (id: string) => void done.push(`drop ${id}`),
  };
  const working = {
    adopt: ({ podUid }: GrantState) => {
      done.push(`adopt ${podUid}`);
      return { revoke: async () => void done.push(`revoke ${podUid}`) };
    },
    clearStrays: async (devices: readonly { readonly minor: number }[], pods: Iterable<string>) => {
      done.push(`strays of ${devices.map(({ minor }) => minor)} in ${[...pods]}`);
      return [];
    },
  } as unknown as DeviceAccess;
  const number = (address: PciAddress) => ({ major: 245, minor: address === first ? 0 : 1 });
  const binder = { vfio: { deviceOf: async (address: PciAddress) => ({ device: number(address) }) } };
  const result = await recoverVfio({
    inventory,
    binder: binder as unknown as DriverBinder,
    access: access ?? working,
    journal,
    pods: { podsWith: async (resources) => new Set(resources.map((resource) => `pod with ${resource}`)) },
    log: recordingLog(),
  });
  const ids = (list: readonly JournalEntry[]) => list.map(({ connectionId }) => connectionId);
  return { inventory, done, taken: ids(result.connections), others: ids(result.others), earlier: result.earlier };
}

test("recoverVfio() goes on with what a pod has, and takes away what no entry tells of", async () => {
  const { inventory, done, taken, others, earlier } = await recovered({});
  assert.deepEqual([taken, others, [...earlier.keys()]], [["c1"], ["kernel"], [first]]);
  const { state, connectionId, use } = inventory.get(first) ?? {};
  assert.deepEqual([state, connectionId, use], ["ready", "c1", "vfio"]);
  assert.deepEqual(done, ["adopt uid-1", "drop untouched", "strays of 0,1 in pod with d/x"]);
});

test("recoverVfio() keeps the pod as the owner of its IOMMU group", async () => {
  const { inventory } = await recovered({});
  const facts = { pf: PF, numaNode: undefined, kernelDriver: "igbvf", driver: "vfio-pci", resources: ["d/y"] };
  inventory.sync(PF, [
    ...inventory.snapshot(),
    { ...facts, address: parsePciAddress("01:10.4"), index: 2, iommuGroup: 0 },
  ]);
  const tokenId = inventory.devicesOf("d/y")[0]?.id ?? "";
  const take = (owner: string) => inventory.take({ connectionId: `of ${owner}`, tokenId, use: "vfio", owner });
  assert.throws(() => take("uid-2"), {
    fault: {
      kind: "no-free-function",
      resource: "d/y",
      use: "vfio",
      total: 1,
      because: { [`in an IOMMU group that another pod has (${first})`]: 1 },
    },
  });
  assert.equal(take("uid-1").iommuGroup, 0);
});

test("recoverVfio() has taken down what was half done", async () => {
  const { inventory, taken } = await recovered({ stage: "preparing" });
  assert.deepEqual([inventory.get(first)?.state, taken], ["preparing", ["c1"]]);
});

test("recoverVfio() takes access from a pod whose connection nobody knows, and keeps the function back", async () => {
  const { inventory, done, taken } = await recovered({ hasConnection: false });
  assert.equal(inventory.get(first)?.state, "quarantined");
  assert.match(inventory.get(first)?.problem ?? "", /connection c1, of which nothing else is known/);
  assert.deepEqual([taken, done[1]], [[], "revoke uid-1"]);
});

test("recoverVfio() knows all that a pod has before it takes something from it", async () => {
  const { done } = await recovered({ hasConnection: false, hasBoth: true });
  assert.deepEqual(done.slice(0, 3), ["adopt uid-1", "adopt uid-1", "revoke uid-1"]);
});

test("recoverVfio() takes access from a pod whose function the node has lost", async () => {
  const { done, taken } = await recovered({ hasFunction: false });
  assert.deepEqual([taken, done.slice(0, 2)], [[], ["adopt uid-1", "revoke uid-1"]]);
});

test("recoverVfio() keeps a function back where access cannot be taken away", async () => {
  const { inventory, taken } = await recovered({ access: new Error("no cgroups here") });
  assert.deepEqual([inventory.get(first)?.state, taken], ["quarantined", []]);
});
