// What a pod was given by VFIO, and nothing continues: it is revoked, and no client gets the VF before.
import assert from "node:assert/strict";
import { test } from "node:test";
import { BOOT, first, INTERVAL_MS, reconciledNode, second, vfioEntry } from "../../test/scenes/reconciled-node.ts";

const FREE = { mac: "00:00:00:00:00:00", vlan: 0 };

type Node = ReturnType<typeof reconciledNode>;

/** A VF that a pod had by VFIO for a connection of which nothing is known. */
function leftToPod(node: Node) {
  node.journal.vfs.set(first, vfioEntry(first));
  Object.assign(node.vf(), { driver: "vfio-pci", link: undefined, settings: { mac: "02:00:00:00:00:55", vlan: 5 } });
  node.inventory.setDriver(first, "vfio-pci");
}

test("access that nothing explains is revoked, and the VF is free when its PF is what it was and its journal entry has gone", async () => {
  const node = reconciledNode();
  leftToPod(node);
  node.journal.left.set("c1", node.connection("c1"));
  node.holders.add(first);
  const { continued, stop } = await node.follow();
  assert.deepEqual([continued, node.stateOf(), node.codes().includes("unexplained-grant")], [[], "quarantined", true]);
  await node.clock.pass(2 * INTERVAL_MS);
  assert.equal(node.vf().settings.vlan, 5, "a process has it open: it must not send without its VLAN");
  assert.deepEqual([node.stateOf(), node.journal.vfs.size], ["quarantined", 1]);
  node.done.length = 0;
  node.holders.clear();
  await node.clock.pass(2 * INTERVAL_MS); // no event says that it is closed
  assert.deepEqual(node.done, ["revoke uid-1", `who has ${first} open`, `forget ${first}`, "drop c1"]);
  assert.deepEqual([node.vf().settings, node.stateOf(), node.codes()], [FREE, "idle", []]);
  assert.equal(node.grants.take({ connectionId: "c1", address: first }), undefined);
  await stop();
});

test("access to a VF that has another one in its place is revoked, and that one stays as the host has it", async () => {
  const node = reconciledNode();
  leftToPod(node);
  node.journal.vfs.set(first, { ...vfioEntry(first), device: `${BOOT}/1` });
  Object.assign(node.vf(), { instance: 2n });
  const { stop } = await node.follow();
  await node.clock.pass(2 * INTERVAL_MS);
  assert.ok(node.done.includes("revoke uid-1"), node.done.join());
  assert.deepEqual([node.vf().settings.vlan, node.journal.vfs.size, node.codes()], [5, 0, []]);
  await stop();
});

test("access that cannot be revoked at the start keeps neither the start nor the other VFs, and is revoked later", async () => {
  const node = reconciledNode();
  leftToPod(node);
  node.failing.add("revoke");
  const { stop } = await node.follow();
  assert.deepEqual(
    node.log.of("access-not-revoked").map(({ error }) => error),
    ["Error: another program holds its filter"],
  );
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.stateOf(), node.stateOf(second)], ["quarantined", "idle"]);
  node.failing.clear();
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.stateOf(), node.journal.vfs.size], ["idle", 0]);
  await stop();
});

test("the start takes from pods what no entry explains, of the VFs that are VFIO's, and passes one over that it cannot read", async () => {
  const node = reconciledNode();
  for (const address of [first, second]) node.inventory.setDriver(address, "vfio-pci");
  node.inventory.setDriver(second, "igbvf");
  const { stop } = await node.follow();
  assert.ok(node.done.includes("strays of 0"), node.done.join());
  await stop();
  const other = reconciledNode();
  other.inventory.setDriver(first, "vfio-pci");
  other.failing.add("deviceOf");
  const followed = await other.follow();
  assert.ok(other.done.includes("strays of "), other.done.join());
  await followed.stop();
});
