import assert from "node:assert/strict";
import { test } from "node:test";
import { paperUnrestored } from "../../test/scenes/paper-unrestored.ts";
import { Inventory } from "../inventory/index.ts";
import type { Uevent } from "../kernel/index.ts";
import type { VfEntry } from "../mechanisms/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { type PciAddress, parsePciAddress } from "../pci/index.ts";
import { createMetrics } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { Reconciler, type ReconcilerOptions } from "./reconcile.ts";

const PF = parsePciAddress("01:00.0");
const [address, goneAddress] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.2")];
const INTERVAL_MS = 5_000;

/**
 * A node with one VF whose network device is not in the host; an observation waits where `gate` says so. The journal has another one
 * that the node does not have, where `isGone` says so, among so many `pfs`.
 */
async function setUp({ isGone = false, pfs = 0 } = {}) {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const facts = { address, pf: PF, index: 0, iommuGroup: undefined, numaNode: undefined, driver: "igbvf" };
  const sync = () => inventory.sync(PF, [{ ...facts, kernelDriver: "igbvf", resources: ["d/x"] }]);
  sync();
  const node = {
    gate: Promise.resolve(),
    ending: Promise.resolve(),
    observations: 0,
    listeners: 0,
    tries: 0,
    /** The kernel says that something of the VF has changed. */
    hear: () => {},
    isHeardOf: false,
    driver: "igbvf",
    hasNetdev: true,
  };
  const clock = new HandClock();
  const log = recordingLog();
  const entryOf = (vf: PciAddress, connectionId: string) => {
    return { use: "kernel", address: vf, connectionId, tokenId: "t", state: {} } as unknown as VfEntry;
  };
  const vfs = new Map<PciAddress, VfEntry>(isGone ? [[goneAddress, entryOf(goneAddress, "c2")]] : []);
  const left = new Map<string, JournalEntry>();
  const done: string[] = [];
  const reconciler = new Reconciler({
    node: {
      inventory,
      binder: {
        isChanging: () => false,
        hasStuckWrite: () => false,
        async observeVf() {
          node.observations += 1;
          await node.gate;
          return { isPresent: true, driver: node.driver, iommuGroup: undefined, hasNetdev: node.hasNetdev };
        },
        // Gone whenever it is to be restored.
        async netdevNow() {
          node.tries += 1;
          if (node.isHeardOf) node.hear();
        },
        isPresent: async (which: PciAddress) => which === address,
        async renew() {},
        driverOf: async () => "igbvf",
        async netdevOf() {
          throw new Error("its driver makes none");
        },
        async bind() {
          done.push("bind");
          throw new Error("the driver refuses");
        },
      },
      survey: { pfs: { size: pfs } },
    },
    journal: {
      vfs,
      left,
      unrestored: paperUnrestored(),
      drop: async () => {},
      forgetVf: (which: PciAddress) => void vfs.delete(which),
    },
    links: {},
    access: new Error("no cgroups here"),
    uevents: {
      subscribe(listener: (event: Uevent) => void) {
        node.listeners += 1;
        node.hear = () => {
          const devpath = `/devices/pci0000:00/${address}/net/eth1`;
          listener({ action: "add", subsystem: "net", devpath, fields: {} });
        };
        return () => {
          node.listeners -= 1;
        };
      },
    },
    intervalMs: INTERVAL_MS,
    metrics: createMetrics(),
    clock,
    log,
  } as unknown as ReconcilerOptions);
  await reconciler.start();
  node.observations = 0;
  node.hasNetdev = false;
  const stop = reconciler.follow({
    rescan: () => void done.push("rescan"),
    async endConnection(id) {
      done.push(`end ${id}`);
      await node.ending;
    },
    adopt: ({ connectionId, stage }) => void done.push(`adopt ${connectionId} ${stage}`),
  });
  const tokenId = inventory.devicesOf("d/x")[0]?.id ?? "";
  const seen = () => {
    const { state, conditions = [] } = inventory.get(address) ?? {};
    return [state, conditions.map(({ code }) => code)];
  };
  return { inventory, node, clock, log, vfs, left, done, sync, tokenId, entryOf, seen, stop };
}

test("Reconciler quarantines a free VF whose network device two passes have not found", async () => {
  const { clock, seen, stop } = await setUp();
  await settled();
  assert.deepEqual(seen(), ["idle", ["netdev-unseen"]]);
  await clock.pass(INTERVAL_MS);
  assert.deepEqual(seen(), ["quarantined", ["netdev-missing", "netdev-unseen"]]);
  await stop();
});

test("Reconciler leaves alone what a Request has taken while it observed", async () => {
  const { inventory, node, clock, log, tokenId, stop } = await setUp();
  await settled();
  const gate = Promise.withResolvers<void>();
  node.gate = gate.promise;
  await clock.pass(INTERVAL_MS);
  assert.equal(node.observations, 2);
  inventory.take({ connectionId: "c1", tokenId, use: "kernel" });
  inventory.setState("c1", "ready");
  gate.resolve();
  await settled();
  const { state, problem } = inventory.get(address) ?? {};
  assert.deepEqual([state, problem], ["ready", undefined]);
  assert.deepEqual(log.of("vf-repaired"), []);
  await stop();
});

test("Reconciler settles a VF of the journal that comes late before any client can get it, and continues its connection", async () => {
  const { inventory, vfs, left, done, sync, tokenId, seen, log, stop } = await setUp();
  await settled();
  inventory.sync(PF, []);
  vfs.set(address, { use: "kernel", address, connectionId: "c1", tokenId } as unknown as VfEntry);
  const owner = { spiffeId: "spiffe://d/manager", isManager: true };
  const connection = {
    connectionId: "c1",
    owner,
    stage: "ready",
    mechanism: "KERNEL",
    tokenId,
    connection: Buffer.of(1),
  } as const;
  left.set("c1", connection);
  sync();
  assert.deepEqual(seen(), ["quarantined", ["unsettled"]]);
  // The node is still being observed: a connection that comes now must not get what a client may have.
  assert.equal(inventory.devicesOf("d/x")[0]?.healthy, false);
  assert.throws(() => inventory.take({ connectionId: "c2", tokenId, use: "kernel" }), {
    fault: { kind: "no-free-vf", resource: "d/x", use: "kernel", total: 1, because: { quarantined: 1 } },
  });
  await settled();
  assert.deepEqual([seen(), done], [["ready", ["pending-netns"]], ["adopt c1 ready"]]);
  assert.equal(log.of("vf-appeared-late").length, 1);
  await stop();
});

test("Reconciler ends a connection whose namespace has ended once, as long as that is under way", async () => {
  const { inventory, node, clock, done, log, tokenId, stop } = await setUp();
  await settled();
  inventory.take({ connectionId: "c1", tokenId, use: "kernel" });
  inventory.setState("c1", "ready");
  inventory.raise(address, { code: "pending-netns", ending: "not" });
  await clock.pass(INTERVAL_MS);
  assert.deepEqual(done, []);
  const ending = Promise.withResolvers<void>();
  Object.assign(node, { hasNetdev: true, ending: ending.promise });
  for (let times = 0; times < 2; times += 1) await clock.pass(INTERVAL_MS);
  assert.deepEqual(done, ["end c1"]);
  ending.resolve();
  await settled();
  await clock.pass(INTERVAL_MS);
  assert.deepEqual(done, ["end c1", "end c1"], "tried again when it has not helped");
  assert.deepEqual(log.of("vf-repaired"), [{ vf: address, repair: "end-connection" }]);
  await stop();
});

test("Reconciler has the whole node observed when it differs twice from the inventory, and reports that once", async () => {
  const { inventory, node, clock, done, log, seen, stop } = await setUp();
  await settled();
  Object.assign(node, { driver: "vfio-pci", hasNetdev: true });
  await clock.pass(INTERVAL_MS);
  assert.deepEqual([seen(), done], [["idle", ["mismatch"]], []]);
  await clock.pass(200);
  await clock.pass(INTERVAL_MS);
  assert.deepEqual([done, log.of("vf-repaired")], [["rescan", "rescan"], [{ vf: address, repair: "rescan" }]]);
  inventory.setDriver(address, "vfio-pci");
  await clock.pass(INTERVAL_MS);
  assert.deepEqual(seen(), ["idle", []]);
  await stop();
});

test("Reconciler says once what cannot be repaired, and tries it again", async () => {
  const { inventory, node, clock, vfs, done, log, seen, tokenId, stop } = await setUp();
  await settled();
  Object.assign(node, { driver: undefined });
  inventory.setDriver(address, undefined);
  vfs.set(address, { use: "kernel", address, connectionId: "c1", tokenId } as unknown as VfEntry);
  for (let times = 0; times < 4; times += 1) await clock.pass(INTERVAL_MS);
  assert.deepEqual(done, ["bind", "bind", "bind"]);
  assert.deepEqual(log.of("vf-not-repaired"), [{ vf: address, repair: "rebind", error: "the driver refuses" }]);
  assert.ok(seen()[1]?.includes("repair-failed"));
  await stop();
});

test("Reconciler tries ever more seldom to restore a VF, which no connection gets meanwhile, and at once when it has changed", async () => {
  const { node, clock, log, vfs, entryOf, seen, stop } = await setUp();
  vfs.set(address, entryOf(address, "c1"));
  node.hasNetdev = true;
  const tries: number[] = [];
  for (let passes = 1; passes <= 19; passes += 1) {
    await clock.pass(INTERVAL_MS);
    await settled();
    assert.equal(seen()[0], "quarantined");
    tries.push(node.tries);
  }
  assert.deepEqual(
    tries.flatMap((count, pass) => (count > (tries[pass - 1] ?? 0) ? pass : [])),
    [0, 1, 3, 7, 13],
    "ever more seldom, up to a limit",
  );
  node.hear();
  await clock.pass(20);
  assert.equal(node.tries, 7, "at once when the kernel has said that it has changed");
  node.hear();
  await clock.pass(20);
  assert.equal(node.tries, 7, "what a try itself has done is no news");
  await clock.pass(INTERVAL_MS);
  assert.equal(node.tries, 8, "and often again, for it is another cause");
  Object.assign(node, { isHeardOf: true });
  await clock.pass(100);
  node.hear();
  await clock.pass(100);
  assert.equal(node.tries, 9, "nor is what comes while it is tried");
  assert.deepEqual([...vfs.keys()], [address]);
  assert.equal(log.of("vf-not-repaired").length, 1, "said once");
  await stop();
});

for (const [says, pfs, forgets] of [
  ["a PF", 1, true],
  ["no PF at all, as with a wrong path of sysfs", 0, false],
] as const) {
  test(`Reconciler ${forgets ? "forgets" : "keeps"} the journal's entry of a VF that is gone from a node with ${says}`, async () => {
    const { clock, vfs, stop } = await setUp({ isGone: true, pfs });
    await clock.pass(12 * INTERVAL_MS - 1);
    assert.deepEqual([...vfs.keys()], [goneAddress], "it may only be reset");
    await clock.pass(2 * INTERVAL_MS);
    assert.deepEqual([...vfs.keys()], forgets ? [] : [goneAddress]);
    await stop();
  });
}

test("Reconciler observes no more when it was stopped, and leaves neither timer nor listener", async () => {
  const { node, clock, stop } = await setUp();
  await settled();
  assert.ok(clock.timerCount > 0 && node.listeners > 0);
  await stop();
  assert.deepEqual([clock.timerCount, node.listeners], [0, 0]);
  const { observations } = node;
  await clock.pass(10 * INTERVAL_MS);
  assert.equal(node.observations, observations);
});
