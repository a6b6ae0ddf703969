import assert from "node:assert/strict";
import { test } from "node:test";
import type { JournalEntry } from "../nsm/index.ts";
import { type DriverBinder, Inventory, type PciAddress, parsePciAddress } from "../sriov/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { KeptVf, NodeJournal } from "../vf/connection-journal.ts";
import { logRecovered, recover } from "./recover.ts";

const PF = parsePciAddress("01:00.0");
const [first, second] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.2")];
const RESOURCE = "d/x";

interface Found {
  /** Functions whose network device the host has; all unless told. */
  readonly inHost?: readonly PciAddress[];
  readonly driver?: string;
  readonly stage?: JournalEntry["stage"];
  /** Whether the journal knows the connection of its function. */
  readonly hasConnection?: boolean;
  /** Whether the journal knows the function of its connection. */
  readonly hasFunction?: boolean;
  readonly mechanism?: JournalEntry["mechanism"];
}

/** A node of two functions, of which the first was out for a connection. */
async function recovered(found: Found) {
  const { inHost = [second], driver = "igbvf", stage = "ready", mechanism = "KERNEL" } = found;
  const { hasConnection = true, hasFunction = true } = found;
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf: PF, iommuGroup: undefined, numaNode: undefined, kernelDriver: "igbvf", resources: [RESOURCE] };
  inventory.sync(PF, [
    { ...common, driver, address: first, index: 0 },
    { ...common, driver: "igbvf", address: second, index: 1 },
  ]);
  const tokenId = inventory.devicesOf(RESOURCE)[0]?.id ?? "";
  const vf = { address: first, connectionId: "c1", tokenId, netns: "4/40", state: {} } as unknown as KeptVf;
  const owner = { spiffeId: "spiffe://d/manager", isManager: true };
  const entry = { connectionId: "c1", owner, stage, mechanism, connection: Buffer.of(1) } as const;
  const dropped: string[] = [];
  const journal = {
    connections: hasConnection ? [entry] : [],
    vfs: new Map(hasFunction ? [[vf.address, vf]] : []),
    drop: async (id: string) => void dropped.push(id),
  } as unknown as NodeJournal;
  const here = new Set(inHost);
  const netdev = (address: PciAddress) => (here.has(address) ? { ifname: "eth1", ifindex: 7 } : undefined);
  const binder = {
    netdevNow: async (address: PciAddress) => netdev(address),
    netdevOf: () => assert.fail("nothing is to wait for a network device"),
  } as unknown as DriverBinder;
  const log = recordingLog();
  const result = await recover({ inventory, binder, journal, log });
  const stages = result.connections.map((one) => one.stage);
  return { ...result, result, inventory, binder, log, here, stages, dropped };
}

test("recover() books a function that is with its client, and touches nothing", async () => {
  const { inventory, stages, unmet } = await recovered({});
  assert.deepEqual([inventory.get(first)?.state, inventory.get(first)?.connectionId], ["ready", "c1"]);
  assert.deepEqual([stages, [...unmet.keys()]], [["ready"], [first]]);
  assert.equal(inventory.get(second)?.state, "idle");
});

test("recover() has taken down what was half done, and what came back because its namespace ended", async () => {
  for (const found of [{ stage: "preparing" }, { stage: "reclaiming" }, { inHost: [first, second] }] as const) {
    const { inventory, stages } = await recovered(found);
    assert.deepEqual([inventory.get(first)?.state, stages], ["preparing", ["reclaiming"]]);
  }
});

test("recover() keeps back what the node contradicts, and leaves its entry for a later start", async () => {
  for (const [found, words] of [
    [{ driver: "vfio-pci" }, /bound to vfio-pci now/],
    [{ hasConnection: false }, /of which nothing else is known/],
  ] as const) {
    const { inventory, connections, dropped } = await recovered(found);
    assert.equal(inventory.get(first)?.state, "quarantined");
    assert.match(inventory.get(first)?.problem ?? "", words);
    assert.deepEqual([connections, dropped], [[], []]);
  }
});

test("recover() drops a KERNEL connection that has touched no function, and goes on with any other", async () => {
  const kernel = await recovered({ inHost: [first, second], hasFunction: false });
  assert.deepEqual([kernel.connections, kernel.dropped], [[], ["c1"]]);
  const noop = await recovered({ inHost: [first, second], hasFunction: false, mechanism: "NOOP" });
  assert.deepEqual([noop.stages, noop.dropped], [["ready"], []]);
});

test("recover() withholds a function without a network device at once, and waits for nothing", async () => {
  const { inventory, hidden, log } = await recovered({ inHost: [] });
  assert.equal(inventory.get(second)?.state, "quarantined");
  assert.deepEqual([[...hidden], log.of("vf-hidden")], [[second], [{ vf: second }]]);
});

test("logRecovered() counts the connections of every mechanism", async () => {
  const { result, log } = await recovered({});
  const entry = { stage: "ready" } as JournalEntry;
  logRecovered(log, result, { connections: [entry, { ...entry, stage: "reclaiming" }], kept: new Map() });
  assert.deepEqual(log.of("recovered"), [{ standing: 2, halfDone: 1, contradicting: 0, hidden: 0, late: 0 }]);
});
