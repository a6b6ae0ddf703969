// One VF given as a network device, from its first Request to its end: what changes meanwhile, and what is left open.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { KernelVfEntry } from "../../src/mechanisms/journal-entries.ts";
import { openFiles } from "../sandbox/scenes/story.ts";
import { address, context, contextOf, nodeOf, StubbornPort } from "../scenes/attached-node.ts";
import { inWorld, linkNamed, openPlace, type Place, picture, type World } from "../scenes/namespaces.ts";

function willingPort(): StubbornPort {
  const port = new StubbornPort(() => {});
  port.refuses = false;
  return port;
}

/** Another namespace that a client may live in. */
function otherPod(t: TestContext): Place {
  const other = openPlace();
  t.after(() => {
    other.rtnl.close();
    other.netns.close();
  });
  return other;
}

const nameIn = async ({ rtnl }: Place, name: string) => (await rtnl.linkByName(name))?.name;
const codesOf = ({ inventory }: ReturnType<typeof nodeOf>) =>
  inventory.get(address)?.conditions.map(({ code }) => code);

/** What the previous instance left of a VF that a client has. */
async function leftOf(world: World, port: StubbornPort): Promise<KernelVfEntry> {
  const earlier = nodeOf(world, port);
  const vf = earlier.take();
  await vf.apply();
  vf.close();
  return earlier.kept.at(-1) ?? assert.fail("nothing was kept");
}

test("a connection holds one handle of its client's namespace and one watch of its pod, and neither when it is over", (t) =>
  inWorld(t, async (world) => {
    const before = [await picture(world.host), await picture(world.pod)];
    const { node, inventory, take } = nodeOf(world, willingPort());
    const open = openFiles("net").length;
    const vf = take();
    assert.equal(await vf.isInForce(), false);
    await vf.prepare();
    assert.deepEqual([openFiles("net").length, node.received, node.done], [open + 1, 1, ["bind"]]);
    await vf.apply();
    for (let refreshes = 0; refreshes < 2; refreshes += 1) {
      await vf.receiveFiles();
      await vf.apply();
      assert.deepEqual([openFiles("net").length, node.received, node.watched], [open + 1, 1, 1]);
    }
    assert.deepEqual([await vf.isInForce(), vf.canServe(), inventory.get(address)?.state], [true, true, "ready"]);
    await vf.release();
    assert.deepEqual([openFiles("net").length, node.watched, inventory.get(address)?.state], [open, 0, "idle"]);
    await vf.receiveFiles();
    await vf.release();
    assert.deepEqual([openFiles("net").length, vf.canServe()], [open, false]);
    assert.deepEqual([await picture(world.host), await picture(world.pod)], before);
  }));

test("close() leaves the link with its client, and neither a handle nor a watch", (t) =>
  inWorld(t, async (world) => {
    const { node, take } = nodeOf(world, willingPort());
    const open = openFiles("net").length;
    const vf = take();
    await vf.apply();
    vf.close();
    assert.deepEqual([openFiles("net").length, node.watched, await nameIn(world.pod, "nsm-1")], [open, 0, "nsm-1"]);
  }));

test("isInForce() sees what the pod has changed, and follows another name that the client has asked for", (t) =>
  inWorld(t, async (world) => {
    const { take } = nodeOf(world, willingPort());
    const vf = take();
    await vf.apply();
    await world.pod.rtnl.setLink((await linkNamed(world.pod, "nsm-1")).index, { up: false });
    assert.deepEqual([await vf.isInForce(), await vf.isInForce(contextOf(6))], [false, false]);
    await vf.apply();
    assert.equal(await vf.isInForce(), true);
    await vf.applyIn(world.pod, "nsm-2");
    assert.deepEqual([await vf.isInForce(), await nameIn(world.pod, "nsm-2")], [true, "nsm-2"]);
    await vf.release();
  }));

test("prepare() that fails gives the handle back that it has got meanwhile", (t) =>
  inWorld(t, async (world) => {
    const { node, take } = nodeOf(world, willingPort());
    const open = openFiles("net").length;
    const vf = take();
    const failed = Promise.withResolvers<void>();
    node.bind = () => failed.promise;
    const preparing = vf.prepare();
    for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
    assert.equal(openFiles("net").length, open + 1);
    failed.reject(new Error("the driver refuses"));
    await assert.rejects(preparing, /the driver refuses/);
    assert.equal(openFiles("net").length, open);
  }));

test("a VF that its client takes along into another namespace leaves nothing in the former one", (t) =>
  inWorld(t, async (world) => {
    const other = otherPod(t);
    const [before, there] = [await picture(world.pod), await picture(other)];
    const port = willingPort();
    const { node, take } = nodeOf(world, port);
    const open = openFiles("net").length;
    const vf = take();
    await vf.apply();
    port.refuses = true;
    for (let tries = 0; tries < 2; tries += 1) {
      await assert.rejects(vf.applyIn(other), /the PF is broken/);
      assert.equal(openFiles("net").length, open + 1, "the handle of the new one is given back");
    }
    port.refuses = false;
    await vf.applyIn(other);
    assert.deepEqual([await picture(world.pod), await nameIn(other, "nsm-1")], [before, "nsm-1"]);
    assert.deepEqual([openFiles("net").length, node.watched], [open + 1, 1]);
    const { received } = node;
    await vf.applyIn(other);
    assert.equal(node.received, received, "it is there");
    await vf.release();
    assert.deepEqual([await picture(other), openFiles("net").length], [there, open]);
  }));

test("a VF that was left half way into one namespace is not given on there when its client comes from another", (t) =>
  inWorld(t, async (world) => {
    const other = otherPod(t);
    const caller = new AbortController();
    const port = new StubbornPort(() => caller.abort(new Error("the caller has gone")));
    const { take } = nodeOf(world, port);
    const vf = take();
    await assert.rejects(vf.apply(context, caller.signal), /the caller has gone/);
    port.refuses = false;
    await vf.applyIn(other);
    assert.deepEqual([await nameIn(world.pod, "nsm-1"), await nameIn(other, "nsm-1")], [undefined, "nsm-1"]);
    await vf.release();
  }));

test("release() that fails keeps the VF from others, and the handle that the next try needs", (t) =>
  inWorld(t, async (world) => {
    const port = willingPort();
    const { node, inventory, take } = nodeOf(world, port);
    const open = openFiles("net").length;
    const vf = take();
    await vf.apply();
    port.refuses = true;
    await assert.rejects(vf.release(), /the PF is broken/);
    assert.deepEqual(
      [inventory.get(address)?.state, openFiles("net").length, node.watched],
      ["reclaiming", open + 1, 0],
    );
    port.refuses = false;
    await vf.release();
    assert.deepEqual([inventory.get(address)?.state, openFiles("net").length], ["idle", open]);
  }));

test("apply() does not touch a VF that the host has begun to use since it was bound", (t) =>
  inWorld(t, async (world) => {
    const { node, take } = nodeOf(world, willingPort());
    const vf = take();
    await vf.prepare();
    const before = await picture(world.host);
    node.hostUse = "vf0 has address 10.0.0.9/24";
    await assert.rejects(vf.apply(), { fault: { kind: "host-uses-it", how: node.hostUse } });
    assert.deepEqual(await picture(world.host), before);
    vf.close();
  }));

test("apply() withholds a VF in whose place another device's link is by now", (t) =>
  inWorld(t, async (world) => {
    const opened = nodeOf(world, willingPort());
    const vf = opened.take();
    await vf.prepare();
    await world.wire.rtnl.deleteLink((await linkNamed(world.wire, "port0")).index);
    await world.host.rtnl.createLink({ kind: "bridge", name: "vf0" });
    await assert.rejects(vf.apply(), /vf0/);
    assert.deepEqual(codesOf(opened), ["foreign-link"]);
    await vf.release();
  }));

test("after a restart a client continues where it was: nothing is bound, and what is changed is in the journal", (t) =>
  inWorld(t, async (world) => {
    const before = [await picture(world.host), await picture(world.pod)];
    const port = willingPort();
    const opened = nodeOf(world, port, await leftOf(world, port));
    const { node, kept, take } = opened;
    const vf = take();
    await vf.prepare();
    assert.deepEqual(node.done, [], "it is with its client");
    assert.deepEqual(codesOf(opened), ["pending-netns"]);
    await vf.apply(contextOf(6));
    assert.deepEqual([codesOf(opened), node.watched, port.settings.vlan, kept.length > 0], [[], 1, 6, true]);
    assert.equal(opened.inventory.get(address)?.state, "ready");
    await vf.release();
    assert.deepEqual([[await picture(world.host), await picture(world.pod)], port.settings.vlan], [before, 0]);
  }));

test("after a restart a client in another namespace gets nothing of what is still in the former one", (t) =>
  inWorld(t, async (world) => {
    const other = otherPod(t);
    const port = willingPort();
    const opened = nodeOf(world, port, await leftOf(world, port));
    const vf = opened.take(other);
    await assert.rejects(vf.apply(), /Cannot find link vf0/);
    assert.deepEqual([codesOf(opened), await nameIn(world.pod, "nsm-1")], [["pending-netns"], "nsm-1"]);
    await vf.applyIn(world.pod).catch(() => {});
    vf.close();
  }));

test("after a restart a VF that has come back is made what it was before it goes out again, and when it is given back", (t) =>
  inWorld(t, async (world) => {
    for (const then of ["apply", "release"] as const) {
      const port = willingPort();
      const left = await leftOf(world, port);
      const { index } = await linkNamed(world.pod, "nsm-1");
      await world.pod.rtnl.setLink(index, { netns: world.host.netns, name: "vf0" });
      const opened = nodeOf(world, port, left);
      const vf = opened.take();
      assert.equal(port.settings.vlan, 5);
      if (then === "apply") {
        await vf.apply(contextOf(6));
        assert.deepEqual([codesOf(opened), await nameIn(world.pod, "nsm-1")], [[], "nsm-1"]);
      }
      await vf.release();
      // In these tests the journal is as the previous instance left it.
      assert.deepEqual([codesOf(opened), port.settings.vlan], [["recently-restored"], 0]);
      assert.equal((await linkNamed(world.host, "vf0")).up, false);
    }
  }));

test("after a restart nothing is written to a link that sysfs has for the VF, and that is another device's", (t) =>
  inWorld(t, async (world) => {
    const port = willingPort();
    const left = await leftOf(world, port);
    await world.host.rtnl.createLink({ kind: "bridge", name: "vf0" });
    const opened = nodeOf(world, port, left);
    const vf = opened.take();
    opened.inventory.setState("c1", "ready");
    const before = await picture(world.host);
    await assert.rejects(vf.release(), /link vf0 .* sits on no device/);
    assert.deepEqual([await picture(world.host), port.settings.vlan], [before, 5]);
    vf.close();
  }));

for (const [says, change, isOver] of [
  ["with its VF", { isPresent: false }, true],
  ["with its driver", { driver: "vfio-pci" }, true],
  ["and where to is not known", {}, false],
] as const) {
  test(`release() of a link that has gone ${says} ${isOver ? "gives the VF back" : "fails"}`, (t) =>
    inWorld(t, async (world) => {
      const port = willingPort();
      const { node, inventory, take } = nodeOf(world, port);
      const vf = take();
      await vf.apply();
      await world.wire.rtnl.deleteLink((await linkNamed(world.wire, "port0")).index);
      Object.assign(node, change);
      if (isOver) await vf.release();
      else await assert.rejects(vf.release(), /Cannot find link vf0/);
      assert.equal(inventory.get(address)?.state, isOver ? "idle" : "reclaiming");
      vf.close();
    }));
}
