// One VF given as a network device, from its first Request to its end: what changes meanwhile, and what is left open.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { KernelVfEntry } from "../../src/mechanisms/journal-entries.ts";
import { ip } from "../sandbox/scenes/ip.ts";
import { openFiles } from "../sandbox/scenes/story.ts";
import { address, context, contextOf, nodeOf, StubbornPort } from "../scenes/attached-node.ts";
import { inWorld, linkNamed, openPlace, type Place, picture, slowLinks, type World } from "../scenes/namespaces.ts";

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
    const { node, inventory, take, clean } = nodeOf(world, willingPort());
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
    assert.deepEqual([openFiles("net").length, node.watched, inventory.get(address)?.state], [open, 0, "reclaiming"]);
    await vf.receiveFiles();
    await vf.release();
    assert.deepEqual([openFiles("net").length, vf.canServe()], [open, false]);
    await clean();
    assert.equal(inventory.get(address)?.state, "idle");
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

test("a VF that its client takes along from a namespace with thousands of links on it is made again by its driver, as the host had set it", (t) =>
  inWorld(t, async (world) => {
    const other = otherPod(t);
    await ip(world.host.netns, "link set vf0 txqueuelen 555");
    const { node, take, clean } = nodeOf({ ...world, links: slowLinks(world) }, willingPort());
    const vf = take();
    await vf.apply();
    for (let at = 0; at < 5; at++)
      await ip(world.pod.netns, `link add link nsm-1 name mv${at} type macvlan mode bridge`);
    await vf.applyIn(other);
    assert.deepEqual([node.done, (await world.pod.rtnl.links()).map(({ name }) => name)], [["renew"], ["lo"]]);
    assert.match(await ip(other.netns, "link show dev nsm-1"), /qlen 555/);
    await vf.release();
    await clean();
    assert.match(await ip(world.host.netns, "link show dev vf0"), /qlen 555/);
  }));

test("a client gets a VF as the host had it before its first client, though it was not made so again since", (t) =>
  inWorld(t, async (world) => {
    const { host, pod } = world;
    await ip(host.netns, "link set vf0 txqueuelen 555 mtu 1400");
    const { kept, take, clean, unrestored } = nodeOf(world, willingPort());
    const tenant = async () => {
      const vf = take();
      await vf.apply();
      const link = await ip(pod.netns, "link show dev nsm-1");
      await vf.release();
      return /mtu \d+|qlen \d+/g[Symbol.match](link);
    };
    const first = await tenant();
    await clean();
    await ip(host.netns, "link set vf0 txqueuelen 7 mtu 1500 up");
    await unrestored.keep(address, { before: kept.at(-1) ?? assert.fail() });
    assert.deepEqual(await tenant(), first);
    await clean();
    assert.match(await ip(host.netns, "link show dev vf0"), /mtu 1400 .*state DOWN .*qlen 555/);
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

test("release() of a VF whose PF takes nothing back keeps no handle, and the VF from others", (t) =>
  inWorld(t, async (world) => {
    const port = willingPort();
    const { node, inventory, take, clean } = nodeOf(world, port);
    const open = openFiles("net").length;
    const vf = take();
    await vf.apply();
    port.refuses = true;
    await vf.release();
    assert.deepEqual([openFiles("net").length, node.watched, port.settings.vlan], [open, 0, 5]);
    await assert.rejects(clean(), /the PF is broken/);
    assert.deepEqual([inventory.get(address)?.state, port.settings.vlan], ["reclaiming", 5]);
    port.refuses = false;
    await clean();
    assert.deepEqual([inventory.get(address)?.state, port.settings.vlan], ["idle", 0]);
  }));

test("release() of a VF that no client has had asks for no other network device", (t) =>
  inWorld(t, async (world) => {
    const { inventory, take } = nodeOf(world, willingPort());
    const vf = take();
    await vf.prepare();
    await world.pod.rtnl.createLink({ kind: "bridge", name: "nsm-1" });
    await assert.rejects(vf.apply(), /nsm-1/);
    await vf.release();
    assert.equal(inventory.get(address)?.state, "idle");
  }));

test("release() succeeds where the link cannot come back, and its driver takes it out of the pod", (t) =>
  inWorld(t, async (world) => {
    const before = [await picture(world.host), await picture(world.pod)];
    const port = willingPort();
    const { take, clean } = nodeOf(world, port);
    const vf = take();
    await vf.apply();
    const { rtnl } = world.pod;
    await rtnl.deleteLink((await linkNamed(world.pod, "nsm-1")).index).catch(() => {});
    await vf.release();
    await clean();
    assert.deepEqual([await picture(world.host), await picture(world.pod), port.settings.vlan], [...before, 0]);
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
    const { node, kept, take, clean } = opened;
    const vf = take();
    await vf.prepare();
    assert.deepEqual(node.done, [], "it is with its client");
    assert.deepEqual(codesOf(opened), ["pending-netns"]);
    await vf.apply(contextOf(6));
    assert.deepEqual([codesOf(opened), node.watched, port.settings.vlan, kept.length > 0], [[], 1, 6, true]);
    assert.equal(opened.inventory.get(address)?.state, "ready");
    await vf.release();
    await clean();
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
      assert.deepEqual([codesOf(opened), port.settings.vlan], [["being-cleaned"], 0]);
      await opened.clean();
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

for (const [says, change, state] of [
  ["with its VF", { isPresent: false }, "idle"],
  ["with its driver", { driver: "vfio-pci" }, "reclaiming"],
  ["and where to is not known", {}, "reclaiming"],
] as const) {
  test(`release() of a link that has gone ${says} ends, and leaves nothing of the client`, (t) =>
    inWorld(t, async (world) => {
      const port = willingPort();
      const { node, inventory, take, clean } = nodeOf(world, port);
      const vf = take();
      await vf.apply();
      await world.wire.rtnl.deleteLink((await linkNamed(world.wire, "port0")).index);
      Object.assign(node, change);
      await vf.release();
      assert.equal(inventory.get(address)?.state, state);
      if (state === "idle") return;
      await clean();
      assert.deepEqual([inventory.get(address)?.state, port.settings.vlan], ["idle", 0]);
    }));
}
