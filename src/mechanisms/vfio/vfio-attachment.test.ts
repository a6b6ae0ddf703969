import assert from "node:assert/strict";
import { test } from "node:test";
import { first, requested, second, vfioNode } from "../../../test/scenes/vfio-node.ts";

test("apply() lets the pod in only when the VF has its MAC address and its VLAN", async () => {
  const { done, take } = vfioNode();
  const vf = await take(first);
  await vf.prepare();
  assert.deepEqual(done.splice(0), [`bind ${first}`, `look who has ${first} open`]);
  await vf.apply();
  assert.deepEqual(done, [`mac=${requested.mac}`, `vlan=${requested.vlan}`, `let ${requested.cgroupDir} in`]);
});

test("apply() grants no access where the PF refuses the VLAN", async () => {
  const { inventory, done, failing, take } = vfioNode();
  const vf = await take(first);
  await vf.prepare();
  failing.add("vlan");
  await assert.rejects(vf.apply(), /vlan refused/);
  assert.ok(!done.some((what) => what.startsWith("let ")), done.join());
  assert.equal(inventory.get(first)?.state, "preparing");
});

test("prepare() takes no VF whose group a process has open", async () => {
  const { done, openGroups, take } = vfioNode();
  openGroups.add(first).add(second);
  const vf = await take(first);
  await assert.rejects(vf.prepare(), { fault: { kind: "group-open", group: 7, processes: [] } });
  assert.ok(done.includes(`look who has ${first} open`) && done.includes(`look who has ${second} open`), done.join());
});

test("prepare() takes the second VF of a group that only the pod itself has open", async () => {
  const { done, openGroups, take } = vfioNode();
  await (await take(first)).prepare();
  openGroups.add(first).add(second);
  done.length = 0;
  await (await take(second)).prepare();
  assert.deepEqual(done, [`bind ${second}`]);
});

test("prepare() waits for a slow driver where every other VF is of the same IOMMU group", async () => {
  const { inventory, done, slow, clock, take } = vfioNode();
  const bound = Promise.withResolvers<void>();
  slow.set(first, bound.promise);
  const vf = await take(first);
  const binding = vf.prepare();
  await clock.pass(60_000);
  bound.resolve();
  await binding;
  assert.deepEqual([vf.address, inventory.get(first)?.state], [first, "preparing"]);
  assert.deepEqual(done, [`bind ${first}`, `look who has ${first} open`]);
});

test("apply() for other containers keeps the former ones out before it lets the new ones in", async () => {
  const { done, take } = vfioNode();
  const vf = await take(first);
  await vf.prepare();
  await vf.apply();
  done.length = 0;
  await vf.apply();
  assert.deepEqual(done.splice(0), [`let ${requested.cgroupDir} in`]);
  await vf.apply("kubepods/pod-a/app");
  assert.deepEqual(done.splice(0), [`keep ${requested.cgroupDir} out`, "let kubepods/pod-a/app in"]);
  await vf.release();
  assert.equal(done[0], "keep kubepods/pod-a/app out");
});

test("prepare() refuses a cgroup that is not the pod's: nothing has been asked of an endpoint, or written to the PF, by then", async () => {
  const { done, node, take } = vfioNode();
  node.foreignCgroup = requested.cgroupDir;
  const vf = await take(first);
  await assert.rejects(vf.prepare(), /is not the pod's/);
  assert.deepEqual(done, [`bind ${first}`, `look who has ${first} open`]);
  await vf.release();
});
