import assert from "node:assert/strict";
import { test } from "node:test";
import { HandClock, settled } from "../nsm/cast.ts";
import { Inventory, type PciAddress, parsePciAddress } from "../sriov/index.ts";
import { createMetrics } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { KeptVf } from "../vf/index.ts";
import { type ReconcileOptions, startReconciler } from "./reconcile.ts";

const PF = parsePciAddress("01:00.0");
const [address, goneAddress] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.2")];
const INTERVAL_MS = 5_000;

/** What the journal has of the VF, which no connection holds any more. */
const kept = { address, connectionId: "c1", tokenId: "t", netns: "4/1", state: {} } as unknown as KeptVf;

/**
 * A node with one function whose network device is not in the host, unless `isSpoilt`: then it is there, not as it was before its
 * last client, and gone whenever it is to be mended. With `isGone` the journal has one that the node has no more, among so many `pfs`. A look
 * waits where `gate` says so.
 */
function setUp({ isSpoilt = false, isGone = false, pfs = 0 } = {}) {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const journalled: [PciAddress, KeptVf][] = [];
  if (isSpoilt) journalled.push([address, kept]);
  if (isGone) journalled.push([goneAddress, { ...kept, address: goneAddress, connectionId: "c2" }]);
  const vfs = new Map(journalled);
  const facts = { address, pf: PF, index: 0, iommuGroup: undefined, numaNode: undefined, driver: "igbvf" };
  inventory.sync(PF, [{ ...facts, kernelDriver: "igbvf", resources: ["d/x"] }]);
  const node = { gate: Promise.resolve(), looks: 0, listeners: 0, tries: 0 };
  const clock = new HandClock();
  const log = recordingLog();
  const left = {
    connections: [],
    unmet: new Map(),
    hidden: new Set<PciAddress>(),
    late: new Map(),
    contradicting: new Map(),
  };
  const options = {
    node: {
      inventory,
      binder: {
        async glanceAt() {
          node.looks += 1;
          await node.gate;
          return { isPresent: true, driver: "igbvf", iommuGroup: undefined, hasNetdev: isSpoilt };
        },
        async netdevNow() {
          node.tries += 1;
        },
        isPresent: async (which: PciAddress) => which === address,
      },
      survey: { pfs: { size: pfs } },
    },
    journal: {
      vfs,
      vfioVfs: new Map(),
      forgotten: new Map(),
      forgetVf: (which: PciAddress) => void vfs.delete(which),
      drop: async () => {},
    },
    left,
    kept: new Map(),
    uevents: {
      subscribe() {
        node.listeners += 1;
        return () => {
          node.listeners -= 1;
        };
      },
    },
    lookAnew: () => assert.fail("nothing has changed"),
    endConnection: () => assert.fail("nobody is to be ended"),
    intervalMs: INTERVAL_MS,
    metrics: createMetrics(),
    clock,
    log,
  } as unknown as ReconcileOptions;
  const tokenId = inventory.devicesOf("d/x")[0]?.id ?? "";
  return { inventory, node, clock, log, left, vfs, tokenId, stop: startReconciler(options) };
}

test("startReconciler() keeps back a free function whose network device two looks have not found", async () => {
  const { inventory, clock, left, stop } = setUp();
  await settled();
  assert.equal(inventory.get(address)?.state, "idle");
  await clock.pass(INTERVAL_MS);
  assert.deepEqual([inventory.get(address)?.state, [...left.hidden]], ["quarantined", [address]]);
  await stop();
});

test("startReconciler() leaves alone what a Request has taken while it looked", async () => {
  const { inventory, node, clock, log, left, tokenId, stop } = setUp();
  await settled();
  const gate = Promise.withResolvers<void>();
  node.gate = gate.promise;
  await clock.pass(INTERVAL_MS);
  assert.equal(node.looks, 2);
  inventory.take({ connectionId: "c1", tokenId, use: "kernel" });
  inventory.setState("c1", "ready");
  gate.resolve();
  await settled();
  const { state, problem } = inventory.get(address) ?? {};
  assert.deepEqual([state, problem, [...left.hidden]], ["ready", undefined, []]);
  assert.deepEqual(log.of("vf-repaired"), []);
  await stop();
});

test("startReconciler() retries to restore a VF, which no connection gets meanwhile", async () => {
  const { inventory, node, clock, log, left, stop } = setUp({ isSpoilt: true });
  for (let looks = 1; looks <= 3; looks += 1) {
    await settled();
    assert.deepEqual([node.looks, node.tries], [looks, looks]);
    assert.deepEqual([inventory.get(address)?.state, left.contradicting.get(address)], ["quarantined", kept]);
    await clock.pass(INTERVAL_MS);
  }
  assert.equal(log.of("vf-not-repaired").length, 1, "said once");
  await stop();
});

for (const [says, pfs, forgets] of [
  ["a PF", 1, true],
  ["no PF at all, as with a wrong path of sysfs", 0, false],
] as const) {
  test(`startReconciler() ${forgets ? "forgets" : "keeps"} the journal's entry of a VF that is gone from a node with ${says}`, async () => {
    const { clock, vfs, stop } = setUp({ isGone: true, pfs });
    await clock.pass(12 * INTERVAL_MS - 1);
    assert.deepEqual([...vfs.keys()], [goneAddress], "it may only be reset");
    await clock.pass(2 * INTERVAL_MS);
    assert.deepEqual([...vfs.keys()], forgets ? [] : [goneAddress]);
    await stop();
  });
}

test("startReconciler() looks no more when it was stopped, and leaves neither timer nor listener", async () => {
  const { node, clock, stop } = setUp();
  await settled();
  assert.ok(clock.timerCount > 0 && node.listeners > 0);
  await stop();
  assert.deepEqual([clock.timerCount, node.listeners], [0, 0]);
  const { looks } = node;
  await clock.pass(10 * INTERVAL_MS);
  assert.equal(node.looks, looks);
});
