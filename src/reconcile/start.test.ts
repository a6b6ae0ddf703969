import assert from "node:assert/strict";
import { test } from "node:test";
import { paperUnrestored } from "../../test/scenes/paper-unrestored.ts";
import type { DeviceAccess, GrantState } from "../access/index.ts";
import { conditionOf, Inventory } from "../inventory/index.ts";
import type { KernelVfEntry, VfEntry, VfioVfEntry } from "../mechanisms/index.ts";
import { AdoptedGrants } from "../mechanisms/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { type PciAddress, parsePciAddress, type VfObservation } from "../pci/index.ts";
import { createMetrics } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { Reconciler, type ReconcilerOptions } from "./reconcile.ts";

const PF = parsePciAddress("01:00.0");
const [first, second] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.2")];
const RESOURCE = "d/x";
const owner = { spiffeId: "spiffe://d/manager", isManager: true };
const grant: GrantState = {
  connectionId: "c1",
  podUid: "uid-1",
  containers: "*",
  devices: [{ major: 245, minor: 0 }],
  wrote: [],
};

interface Found {
  readonly mechanism?: JournalEntry["mechanism"];
  readonly stage?: JournalEntry["stage"];
  /** Connections of the journal besides that of the first VF. */
  readonly more?: readonly JournalEntry["mechanism"][];
  /** Whether the journal has the connection of its VF, and the VF of its connection. */
  readonly hasConnection?: boolean;
  readonly hasEntry?: boolean;
  /** Whether the pod has the second VF too. */
  readonly hasBoth?: boolean;
  readonly isPresent?: boolean;
  readonly driver?: string;
  /** VFs whose network device the host has; the second by default. */
  readonly inHost?: readonly PciAddress[];
  readonly access?: Error;
  /** Its client had the VF before its connection. */
  readonly isFound?: boolean;
  readonly resources?: readonly string[];
  /** In place of that of its VF. */
  readonly tokenId?: string;
  /** What kubelet says of a token that this node did not make. */
  readonly resourceOf?: (tokenId: string) => string | undefined;
}

/** What the start makes of a node with two VFs, of which the first was out for connection c1. */
async function started(found: Found) {
  const { mechanism = "KERNEL", stage = "ready", more = [], hasConnection = true, hasEntry = true } = found;
  const { hasBoth = false, isPresent = true, inHost = [second], resources = [RESOURCE] } = found;
  const { driver = mechanism === "VFIO" ? "vfio-pci" : "igbvf" } = found;
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf: PF, numaNode: undefined, kernelDriver: "igbvf", resources };
  const facts = [first, second].map((address, index) => {
    return { ...common, address, index, iommuGroup: index, driver: index === 0 || hasBoth ? driver : "igbvf" };
  });
  inventory.sync(PF, facts);
  const { tokenId = inventory.devicesOf(RESOURCE)[0]?.id ?? "" } = found;
  if (!isPresent) inventory.sync(PF, facts.slice(1));
  const entry = { address: first, connectionId: "c1", tokenId };
  const kernel = {
    ...entry,
    use: "kernel",
    netns: "4/40",
    state: {},
    ...(found.isFound && { isFound: true }),
  } as unknown as KernelVfEntry;
  const vfio: VfioVfEntry = { ...entry, use: "vfio", owner: "uid-1", grant, before: {} };
  const connection = (connectionId: string, of: JournalEntry["mechanism"]): JournalEntry => {
    return { connectionId, owner, stage, mechanism: of, tokenId, connection: Buffer.of(1) };
  };
  const done: string[] = [];
  const vfs: VfEntry[] = hasEntry ? [mechanism === "VFIO" ? vfio : kernel] : [];
  if (hasBoth) vfs.push({ ...vfio, address: second, connectionId: "of second" });
  const connections = [
    ...(hasConnection ? [connection("c1", mechanism)] : []),
    ...more.map((of) => connection(`more ${of}`, of)),
  ];
  const kept = new Map(vfs.map((vf) => [vf.address, vf]));
  const left = new Map(connections.map((one) => [one.connectionId, one]));
  const working = {
    adopt({ podUid }: GrantState) {
      done.push(`adopt ${podUid}`);
      return { revoke: async () => void done.push(`revoke ${podUid}`) };
    },
    async clearStrays(devices: readonly { readonly minor: number }[], pods: Iterable<string>) {
      done.push(`strays of ${devices.map(({ minor }) => minor)} in ${[...pods]}`);
      return [];
    },
  } as unknown as DeviceAccess;
  const observationOf = (address: PciAddress): VfObservation => {
    const { iommuGroup, driver: bound } = inventory.get(address) ?? {};
    const isHere = inventory.get(address) !== undefined;
    return { isPresent: isHere, driver: bound, iommuGroup, hasNetdev: inHost.includes(address) };
  };
  const log = recordingLog();
  const grants = new AdoptedGrants();
  const number = (address: PciAddress) => ({ device: { major: 245, minor: address === first ? 0 : 1 } });
  const reconciler = new Reconciler({
    node: {
      inventory,
      binder: {
        isChanging: () => false,
        hasStuckWrite: () => false,
        observeVf: async (address: PciAddress) => observationOf(address),
        netdevOf: () => assert.fail("nothing is to wait for a network device"),
        vfio: { deviceOf: async (address: PciAddress) => number(address) },
      },
    },
    journal: {
      vfs: kept,
      left,
      async drop(id: string) {
        left.delete(id);
        done.push(`drop ${id}`);
      },
      forgetVf(address: PciAddress) {
        kept.delete(address);
        done.push(`forget ${address}`);
      },
      unrestored: paperUnrestored(),
      keepVf: async () => {},
    },
    links: {},
    access: found.access ?? working,
    grants,
    pods: {
      podsWith: async (names: readonly string[]) => new Set(names.map((name) => `pod with ${name}`)),
      read: async () => undefined,
    },
    resourceOf: async (id: string) => found.resourceOf?.(id),
    metrics: createMetrics(),
    clock: new HandClock(),
    log,
  } as unknown as ReconcilerOptions);
  const continued = (await reconciler.start()).map((one) => `${one.connectionId} ${one.stage}`);
  return { inventory, done, continued, log, record: inventory.get(first), grants };
}

test("start() continues a connection whose VF is with its client, and touches nothing", async () => {
  const { inventory, record, continued, done } = await started({});
  assert.deepEqual([record?.state, record?.connectionId, record?.problem], ["ready", "c1", undefined]);
  assert.deepEqual(record?.conditions, [{ code: "pending-netns", ending: "not" }]);
  assert.deepEqual([continued, inventory.get(second)?.state], [["c1 ready"], "idle"]);
  assert.deepEqual(done, ["strays of  in pod with d/x"]);
});

test("start() continues a connection of a token that the Go original made, by kubelet's word", async () => {
  const resources = [RESOURCE, "d/y"];
  const [tokenId, queried] = ["sriov-3b2f6a1e-6c1d-4f0e-9a77-0c5a3a1d9e01", [] as string[]];
  const resourceOf = (id: string) => {
    queried.push(id);
    return id === tokenId ? "d/y" : undefined;
  };
  const { inventory, record, continued } = await started({ tokenId, resources, resourceOf });
  assert.deepEqual([record?.state, record?.tokenId, continued], ["ready", tokenId, ["c1 ready"]]);
  assert.deepEqual([inventory.resourceOf(tokenId), queried], ["d/y", [tokenId]]);
  const unknown = await started({ tokenId, resources, resourceOf: () => undefined });
  assert.match(unknown.record?.problem ?? "", /no resource of this node gave it out/);
});

test("start() leaves a VF with the client that had it before its connection was begun, and knows nothing of that any more", async () => {
  const begun = await started({ isFound: true, stage: "preparing" });
  assert.deepEqual([begun.record?.connectionId, begun.continued], [undefined, []]);
  assert.ok(begun.record && conditionOf(begun.record, "netdev-missing"));
  assert.deepEqual(begun.done.slice(0, 2), [`forget ${first}`, "drop c1"]);
  for (const stage of ["ready", "reclaiming"] as const) {
    const { continued } = await started({ isFound: true, stage });
    assert.deepEqual(continued, [`c1 ${stage}`]);
  }
});

test("start() has taken down what was half done, and what came back because its namespace ended", async () => {
  for (const found of [{ stage: "preparing" }, { stage: "reclaiming" }, { inHost: [first, second] }] as const) {
    const { record, continued } = await started(found);
    assert.deepEqual([record?.state, continued], ["preparing", ["c1 reclaiming"]]);
  }
});

test("start() quarantines what the node contradicts, and leaves its entry for a later start", async () => {
  for (const [found, words] of [
    [{ driver: "vfio-pci" }, /bound to vfio-pci now/],
    [{ hasConnection: false }, /of which nothing else is known/],
  ] as const) {
    const { record, continued, done, log } = await started(found);
    assert.equal(record?.state, "quarantined");
    assert.match(record.problem ?? "", words);
    assert.deepEqual(
      [continued, done.filter((one) => one.startsWith("drop")), log.of("vf-contradicts-journal").length],
      [[], [], 1],
    );
  }
});

test("start() drops a connection that has touched no VF, and continues one that has none", async () => {
  const { continued, done } = await started({ more: ["KERNEL", "VFIO", "NOOP"] });
  assert.deepEqual(continued, ["c1 ready", "more NOOP ready"]);
  assert.deepEqual(
    done.filter((one) => one.startsWith("drop")),
    ["drop more KERNEL", "drop more VFIO"],
  );
});

test("start() continues what is half done without a VF: its endpoint gets the Close", async () => {
  const { continued } = await started({ stage: "preparing", more: ["NOOP"] });
  assert.deepEqual(continued, ["c1 reclaiming", "more NOOP preparing"]);
});

test("start() quarantines a VF without a network device at once, and waits for nothing", async () => {
  const { inventory, log } = await started({ inHost: [] });
  const record = inventory.get(second);
  assert.equal(record?.state, "quarantined");
  assert.ok(record && conditionOf(record, "netdev-missing"));
  assert.deepEqual(log.of("vf-repaired"), [{ vf: second, repair: "quarantine" }]);
});

test("start() counts what it found, of every mechanism", async () => {
  const seen = async (found: Found) => (await started(found)).log.of("recovered");
  const none = { established: 0, halfDone: 0, contradicting: 0, missing: 0, late: 0 };
  assert.deepEqual(await seen({ more: ["NOOP"] }), [{ ...none, established: 2 }]);
  assert.deepEqual(await seen({ mechanism: "VFIO", stage: "preparing" }), [{ ...none, halfDone: 1 }]);
  assert.deepEqual(await seen({ mechanism: "VFIO", hasConnection: false }), [{ ...none, contradicting: 1 }]);
  assert.deepEqual(await seen({ isPresent: false, inHost: [] }), [{ ...none, missing: 1, late: 1 }]);
});

test("start() continues what a pod has by VFIO, and takes from pods what no entry explains", async () => {
  const { record, continued, done, grants } = await started({ mechanism: "VFIO", inHost: [second] });
  assert.deepEqual([record?.state, record?.connectionId, record?.use], ["ready", "c1", "vfio"]);
  assert.deepEqual(record?.conditions, [], "no namespace of its client is awaited");
  assert.deepEqual([continued, done], [["c1 ready"], ["adopt uid-1", "strays of 0 in pod with d/x"]]);
  assert.equal(grants.take({ connectionId: "c1", address: first })?.entry.kept.address, first);
});

test("start() keeps the pod as the owner of its IOMMU group", async () => {
  const { inventory } = await started({ mechanism: "VFIO" });
  const facts = { pf: PF, numaNode: undefined, kernelDriver: "igbvf", driver: "vfio-pci", resources: ["d/y"] };
  const third = { ...facts, address: parsePciAddress("01:10.4"), index: 2, iommuGroup: 0 };
  inventory.sync(PF, [...inventory.snapshot(), third]);
  const tokenId = inventory.devicesOf("d/y")[0]?.id ?? "";
  const take = (pod: string) => inventory.take({ connectionId: `of ${pod}`, tokenId, use: "vfio", owner: pod });
  assert.throws(() => take("uid-2"), {
    fault: {
      kind: "no-free-vf",
      resource: "d/y",
      use: "vfio",
      total: 1,
      because: { [`in an IOMMU group that another pod has (${first})`]: 1 },
    },
  });
  assert.equal(take("uid-1").iommuGroup, 0);
});

test("start() takes what is half done by VFIO over as it was left", async () => {
  const { record, continued } = await started({ mechanism: "VFIO", stage: "preparing" });
  assert.deepEqual([record?.state, continued], ["preparing", ["c1 preparing"]]);
});

test("start() revokes a grant whose connection the journal does not have, and quarantines the VF", async () => {
  const { record, done, continued } = await started({ mechanism: "VFIO", hasConnection: false });
  assert.equal(record?.state, "quarantined");
  assert.match(record.problem ?? "", /connection c1, of which nothing else is known/);
  assert.deepEqual([continued, done[1]], [[], "revoke uid-1"]);
});

test("start() knows all that a pod has before it takes something from it", async () => {
  const { done } = await started({ mechanism: "VFIO", hasConnection: false, hasBoth: true });
  assert.deepEqual(done.slice(0, 3), ["adopt uid-1", "adopt uid-1", "revoke uid-1"]);
});

test("start() revokes the grant of a VF that the node has lost", async () => {
  const { done, continued } = await started({ mechanism: "VFIO", isPresent: false });
  assert.deepEqual([continued, done.slice(0, 2)], [[], ["adopt uid-1", "revoke uid-1"]]);
});

test("start() quarantines a VF where access cannot be revoked, and holds it for no connection", async () => {
  const { record, continued } = await started({ mechanism: "VFIO", access: new Error("no cgroups here") });
  assert.deepEqual([record?.state, record?.connectionId, continued], ["quarantined", undefined, []]);
});
