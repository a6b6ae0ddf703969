// What one VF given by VFIO goes through over time: a change while it is established, a failure in the middle, its end.
import assert from "node:assert/strict";
import { test } from "node:test";
import { first, requested, second, UID, vfioNode } from "../../../test/scenes/vfio-node.ts";
import { settled } from "../../nsm/testing/fakes.ts";

const OTHER = "kubepods/pod-a/app";

/** Of a node with one VF established. */
async function established() {
  const node = vfioNode();
  const vf = await node.take(first);
  await vf.prepare();
  await vf.apply();
  node.done.length = 0;
  return { ...node, vf };
}

test("release() gives a VF back when each step before has ended, and leaves nothing of the client", async () => {
  const { inventory, done, node, settings, vfs, vf } = await established();
  assert.deepEqual([inventory.get(first)?.state, [...vfs.keys()]], ["ready", [first]]);
  const revoked = Promise.withResolvers<void>();
  node.revoking = revoked.promise;
  const ending = vf.release();
  await settled();
  assert.deepEqual([inventory.get(first)?.state, done], ["reclaiming", []]);
  revoked.resolve();
  await ending;
  const steps = ["keep kubepods/pod-a/* out", `look who has ${first} open`, "vlan=0", "mac=00:00:00:00:00:00"];
  assert.deepEqual([...done].sort(), [...steps, `forget ${first}`].sort());
  assert.deepEqual([done.slice(0, 2), done.at(-1)], [steps.slice(0, 2), `forget ${first}`]);
  assert.deepEqual([inventory.get(first)?.state, [...vfs.keys()]], ["idle", []]);
  assert.deepEqual(inventory.get(first)?.conditions, []);
  assert.deepEqual(settings.get(0), { mac: "00:00:00:00:00:00", vlan: 0 });
  await vf.release();
  assert.equal(done.length, steps.length + 1, "a second time does nothing");
});

test("release() keeps a VF that a process has open, says so after a while, and gives it back once that has closed it", async () => {
  const { inventory, done, openGroups, settings, clock, vf } = await established();
  openGroups.add(first);
  let failure: unknown;
  const ending = vf.release().catch((error: unknown) => {
    failure = error;
  });
  await clock.pass(1_999);
  assert.equal(failure, undefined);
  await clock.pass(1);
  await ending;
  assert.match(String(failure), /open/);
  const times = done.filter((what) => what.startsWith("look")).length;
  assert.ok(times > 2 && times < 12, `${times} times, ever less often`);
  assert.deepEqual([inventory.get(first)?.state, settings.get(0)?.vlan], ["reclaiming", requested.vlan]);
  assert.ok(!done.some((what) => what.startsWith("vlan")), done.join());
  openGroups.clear();
  await vf.release();
  assert.deepEqual([inventory.get(first)?.state, settings.get(0)?.vlan], ["idle", 0]);
  assert.equal(clock.timerCount, 0);
});

test("release() waits for a process that closes the group in time, though the pod is still being given another VF of it", async () => {
  const { inventory, openGroups, clock, take, vf } = await established();
  await (await take(second)).prepare();
  openGroups.add(first);
  const ending = vf.release();
  await clock.pass(500);
  openGroups.clear();
  await clock.pass(2_000);
  await ending;
  assert.equal(inventory.get(first)?.state, "idle");
});

test("release() does not wait for the pod's process where another VF of the group is established", async () => {
  const { inventory, openGroups, take, vf } = await established();
  const other = await take(second);
  await other.prepare();
  await other.apply();
  openGroups.add(first);
  await assert.rejects(vf.release(), { fault: { kind: "group-open", group: 7, processes: [], besides: second } });
  assert.equal(inventory.get(first)?.state, "reclaiming");
});

test("release() of a VF that was never granted does not query who has the group open: the pod may have it by another VF", async () => {
  const { inventory, openGroups, take } = await established();
  const other = await take(second);
  await other.prepare();
  openGroups.add(second);
  await other.release();
  assert.equal(inventory.get(second)?.state, "idle");
});

test("release() of a VF that has gone from the node writes nothing to its PF", async () => {
  const { inventory, done, node, vf } = await established();
  node.isPresent = false;
  await vf.release();
  assert.deepEqual(done, ["keep kubepods/pod-a/* out", `look who has ${first} open`, `forget ${first}`]);
  assert.equal(inventory.get(first)?.state, "idle");
});

test("release() leaves another VF that was made in its place as the host has it", async () => {
  const { done, node, settings, vf } = await established();
  node.instance = 2n;
  settings.set(0, { mac: "02:00:00:00:00:77", vlan: 77 });
  await vf.release();
  assert.deepEqual(settings.get(0), { mac: "02:00:00:00:00:77", vlan: 77 });
  assert.equal(done.at(-1), `forget ${first}`);
});

test("apply() to another VF that was made in its place keeps what that one had, and release() gives it back", async () => {
  const { node, settings, vfs, vf } = await established();
  const had = { mac: "02:00:00:00:00:77", vlan: 77 };
  node.instance = 2n;
  settings.set(0, had);
  await vf.apply();
  assert.deepEqual(settings.get(0), { mac: requested.mac, vlan: requested.vlan });
  const kept = vfs.get(first);
  assert.deepEqual(kept?.use === "vfio" && [kept.before, kept.device], [had, "this boot/2"]);
  await vf.release();
  assert.deepEqual(settings.get(0), had);
});

test("isInForce() holds only as long as grant, device and settings are what the client was given", async () => {
  const { node, settings, vf } = await established();
  assert.equal(await vf.isInForce(), true);
  assert.equal(await vf.isInForce(9), false, "another VLAN");
  node.isInForce = false;
  assert.equal(await vf.isInForce(), false, "a runtime has written its filter again");
  node.isInForce = true;
  node.minor = 8;
  assert.equal(await vf.isInForce(), false, "its node has another number");
  node.minor = 7;
  settings.set(0, { mac: requested.mac, vlan: 9 });
  assert.equal(await vf.isInForce(), false, "the PF has been changed");
  settings.set(0, { mac: requested.mac, vlan: requested.vlan });
  assert.equal(await vf.isInForce(), true);
});

test("isInForce() does not hold after a change of containers that has failed half way", async () => {
  const { done, failing, settings, vf } = await established();
  settings.set(0, { mac: requested.mac, vlan: 9 });
  failing.add("vlan");
  await assert.rejects(vf.apply(OTHER), /vlan refused/);
  failing.clear();
  settings.set(0, { mac: requested.mac, vlan: requested.vlan });
  assert.equal(await vf.isInForce(), false);
  await vf.apply(OTHER);
  assert.equal(await vf.isInForce(), true);
  assert.deepEqual(
    done.filter((what) => what.startsWith("let ") || what.startsWith("keep ")),
    ["keep kubepods/pod-a/* out", `let ${OTHER} in`],
  );
});

test("apply() takes away the device of before where the node has another number, and keeps the former pod out first", async () => {
  const { done, node, vfs, vf } = await established();
  node.minor = 8;
  const revoked = Promise.withResolvers<void>();
  node.revoking = revoked.promise;
  const applying = vf.apply();
  await settled();
  assert.deepEqual(done, []);
  revoked.resolve();
  await applying;
  assert.deepEqual(done, ["keep kubepods/pod-a/* out", "let kubepods/pod-a/* in"]);
  const kept = vfs.get(first);
  assert.deepEqual(kept?.use === "vfio" && kept.grant?.devices.map(({ minor }) => minor), [196, 8]);
});

test("canServe() is for the same token by VFIO, as long as the VF is not given back", async () => {
  const { tokenOf, vf } = await established();
  const desired = { type: "VFIO", tokenId: vf.tokenId, cgroupDir: OTHER } as const;
  const kernel = { type: "KERNEL", tokenId: vf.tokenId } as never;
  assert.deepEqual([vf.canServe(desired), vf.canServe(kernel)], [true, false]);
  assert.equal(vf.canServe({ ...desired, tokenId: tokenOf(second) }), false);
  await vf.release();
  assert.equal(vf.canServe(desired), false);
});

test("close() lets go of the grant, and the pod keeps what it has", async () => {
  const { done, inventory, vfs, vf } = await established();
  vf.close();
  assert.deepEqual(done, ["let go of kubepods/pod-a/*"]);
  assert.deepEqual([inventory.get(first)?.state, [...vfs.keys()]], ["ready", [first]]);
});

test("adopt() continues what a previous instance gave: its grant is revoked at the end, and the PF gets back what it held", async () => {
  const { inventory, done, settings, vfs, journal, grants, access, tokenOf, take } = vfioNode();
  const connectionId = `of ${first}`;
  const devices = [
    { major: 10, minor: 196 },
    { major: 245, minor: 7 },
  ];
  const grant = { connectionId, podUid: UID, containers: "*", devices, wrote: [] };
  const entry = { use: "vfio", address: first, connectionId, tokenId: tokenOf(first), owner: UID, grant } as const;
  const kept = { ...entry, before: { mac: "02:00:00:00:00:09", vlan: 3 } };
  vfs.set(first, kept);
  settings.set(0, { mac: requested.mac, vlan: requested.vlan });
  const adopted = grants.adopt(kept, { access, journal });
  assert.equal(grants.adopt(kept, { access, journal }), adopted, "once");
  const vf = await take(first, "adopt");
  assert.equal(await vf.isInForce(), true);
  assert.equal(grants.take({ connectionId, address: first }), undefined, "it is the attachment's now");
  assert.deepEqual(done, []);
  await vf.release();
  assert.deepEqual(done.slice(0, 2), [`keep pod ${UID} out`, `look who has ${first} open`]);
  assert.deepEqual([settings.get(0), inventory.get(first)?.state], [kept.before, "idle"]);
});

test("adopt() continues with the pod that the previous instance gave it to: no other pod's cgroup is opened for the client", async () => {
  const { node, vfs, journal, grants, access, tokenOf, take } = vfioNode();
  const ids = { address: first, connectionId: `of ${first}`, tokenId: tokenOf(first) };
  const kept = { ...ids, use: "vfio", owner: UID, grant: undefined, before: {} } as const;
  vfs.set(first, kept);
  grants.adopt(kept, { access, journal });
  const vf = await take(first, "adopt");
  await vf.apply(OTHER);
  assert.deepEqual(node.grantedTo, [UID]);
});

test("adopt() of what was given of a VF that has another one in its place gives the PF nothing back", async () => {
  const { done, node, settings, vfs, journal, grants, access, tokenOf, take } = vfioNode();
  const ids = { address: first, connectionId: `of ${first}`, tokenId: tokenOf(first) };
  const before = { mac: "02:00:00:00:00:09", vlan: 3 };
  const kept = { ...ids, use: "vfio", owner: UID, grant: undefined, before, device: "this boot/1" } as const;
  vfs.set(first, kept);
  node.instance = 2n;
  settings.set(0, { mac: requested.mac, vlan: 4 });
  grants.adopt(kept, { access, journal });
  await (await take(first, "adopt")).release();
  assert.deepEqual(settings.get(0), { mac: requested.mac, vlan: 4 });
  assert.deepEqual(done, [`forget ${first}`]);
});

test("a VF is the pod's for the whole IOMMU group: a connection of the same pod gets another VF of it", async () => {
  const { inventory, vfs, vf, take } = await established();
  assert.equal(inventory.get(first)?.use, "vfio");
  const kept = vfs.get(first);
  assert.deepEqual(kept?.use === "vfio" && kept.owner, UID);
  const other = await take(second);
  await other.prepare();
  assert.deepEqual([vf.address, other.address], [first, second]);
});

test("apply() holds a VF for ready only when the pod is let in: until then it may still be left", async () => {
  const { inventory, node, take } = vfioNode();
  const vf = await take(first);
  await vf.prepare();
  const granted = Promise.withResolvers<void>();
  node.granting = granted.promise;
  const applying = vf.apply();
  await settled();
  assert.equal(inventory.get(first)?.state, "preparing");
  granted.resolve();
  await applying;
  assert.equal(inventory.get(first)?.state, "ready");
});

test("apply() for containers that are not the pod's leaves the pod what it has", async () => {
  const { done, node, vf } = await established();
  node.foreignCgroup = OTHER;
  await assert.rejects(vf.apply(OTHER), /is not the pod's/);
  assert.deepEqual(done, []);
  assert.equal(await vf.isInForce(), true);
});

test("apply() that cannot keep the former containers out holds them still: a release keeps them out", async () => {
  const { done, node, vf } = await established();
  node.revoking = Promise.reject(new Error("the cgroup is busy"));
  await assert.rejects(vf.apply(OTHER), /busy/);
  node.revoking = Promise.resolve();
  await vf.release();
  assert.equal(done[0], `keep ${requested.cgroupDir} out`);
});

test("release() does not wait where the kernel does not say who has the group open", async () => {
  const { inventory, node, clock, vf } = await established();
  node.isUnreadable = true;
  await assert.rejects(vf.release(), /does not say/);
  assert.deepEqual([inventory.get(first)?.state, clock.timerCount], ["reclaiming", 0]);
});
