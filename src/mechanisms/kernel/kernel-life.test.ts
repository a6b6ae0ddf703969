// What one VF given as a network device goes through over time, its links in memory: what changes meanwhile, what fails in the
// middle, what a previous instance left, and what is left open. On real links: test/real/kernel-attachment-life.test.ts.
import assert from "node:assert/strict";
import { test } from "node:test";
import { openHandles } from "../../../sandbox/simulation/handles.ts";
import { address, context, contextOf, nodeOf, StubbornPort } from "../../../test/scenes/attached-node.ts";
import { inMemory, type MemoryWorld } from "../../../test/scenes/memory-world.ts";
import type { VfRecord } from "../../inventory/index.ts";
import { settled } from "../../nsm/testing/fakes.ts";
import type { KernelVfEntry } from "../journal-entries.ts";

type Place = MemoryWorld["pod"];

/** A node of one VF whose PF takes everything, and what counts its open descriptors from here on. */
function nodeIn(world: MemoryWorld, left?: KernelVfEntry, port = willingPort()) {
  const opened = nodeOf(world, port, left);
  const before = openHandles().length;
  const codes = () => opened.inventory.get(address)?.conditions.map(({ code }) => code);
  const stateOf = (): VfRecord["state"] | undefined => opened.inventory.get(address)?.state;
  return { ...opened, port, codes, stateOf, handles: () => openHandles().length - before };
}

function willingPort(): StubbornPort {
  const port = new StubbornPort(() => {});
  port.refuses = false;
  return port;
}

const inNode = (story: (world: MemoryWorld) => Promise<void>) =>
  inMemory(async (world) => {
    await world.renew();
    await story(world);
  });

const namesIn = async ({ rtnl }: Place) => (await rtnl.links()).map(({ name }) => name).filter((name) => name !== "lo");

/** What the previous instance left of a VF that a client has. */
async function leftOf(world: MemoryWorld, port: StubbornPort): Promise<KernelVfEntry> {
  const { take, kept } = nodeIn(world, undefined, port);
  const vf = take();
  await vf.apply();
  vf.close();
  return kept.at(-1) ?? assert.fail("nothing was kept");
}

test("a connection holds one handle of its client's namespace and one watch of its pod, and neither when it is over", () =>
  inNode(async (world) => {
    const { node, take, clean, handles, stateOf } = nodeIn(world);
    const vf = take();
    assert.equal(await vf.isInForce(), false);
    await vf.prepare();
    assert.deepEqual([handles(), node.received, node.done], [1, 1, ["bind"]]);
    for (let refreshes = 0; refreshes < 3; refreshes += 1) {
      await vf.receiveFiles();
      await vf.apply();
      assert.deepEqual([handles(), node.received, node.watched], [1, 1, 1]);
    }
    assert.deepEqual([await vf.isInForce(), vf.canServe(), stateOf()], [true, true, "ready"]);
    await vf.release();
    assert.deepEqual([handles(), node.watched, stateOf(), await namesIn(world.pod)], [0, 0, "reclaiming", []]);
    await vf.receiveFiles();
    await clean();
    await vf.release();
    assert.deepEqual([handles(), vf.canServe(), stateOf()], [0, false, "idle"]);
  }));

test("close() leaves the link with its client, and neither a handle nor a watch", () =>
  inNode(async (world) => {
    const { node, take, handles } = nodeIn(world);
    const vf = take();
    await vf.apply();
    vf.close();
    assert.deepEqual([handles(), node.watched, await namesIn(world.pod)], [0, 0, ["nsm-1"]]);
  }));

test("isInForce() follows another name that the client has asked for", () =>
  inNode(async (world) => {
    const { take, handles } = nodeIn(world);
    const vf = take();
    await vf.apply();
    assert.deepEqual([await vf.isInForce(), await vf.isInForce(contextOf(6))], [true, false]);
    await vf.applyIn(world.pod, "nsm-2");
    assert.deepEqual([await vf.isInForce(), await namesIn(world.pod)], [true, ["nsm-2"]]);
    await vf.release();
    assert.equal(handles(), 0);
  }));

test("prepare() that fails gives the handle back that it has got meanwhile", () =>
  inNode(async (world) => {
    const { node, take, handles } = nodeIn(world);
    const failed = Promise.withResolvers<void>();
    node.bind = () => failed.promise;
    const preparing = take().prepare();
    await settled();
    assert.equal(handles(), 1);
    failed.reject(new Error("the driver refuses"));
    await assert.rejects(preparing, /the driver refuses/);
    assert.equal(handles(), 0);
  }));

test("a VF that its client takes along into another namespace leaves nothing in the former one, nor a handle where that fails", () =>
  inNode(async (world) => {
    const other = world.openPod();
    const { node, port, take, handles, stateOf } = nodeIn(world);
    const vf = take();
    await vf.apply();
    port.refuses = true;
    for (let tries = 0; tries < 2; tries += 1) {
      await assert.rejects(vf.applyIn(other), /the PF is broken/);
      assert.equal(handles(), 1, "the handle of the new one is given back");
    }
    port.refuses = false;
    await vf.applyIn(other);
    assert.deepEqual([await namesIn(world.pod), await namesIn(other)], [[], ["nsm-1"]]);
    const { received } = node;
    await vf.applyIn(other);
    assert.deepEqual([handles(), node.watched, node.received], [1, 1, received]);
    await vf.release();
    assert.deepEqual([handles(), await namesIn(other), stateOf()], [0, [], "reclaiming"]);
  }));

/** A client that goes while its VF is on its way in, from a PF that takes nothing back at first. */
async function leftBehind(world: MemoryWorld) {
  const caller = new AbortController();
  const port = new StubbornPort(() => caller.abort(new Error("the caller has gone")));
  const opened = nodeIn(world, undefined, port);
  const vf = opened.take();
  await assert.rejects(vf.apply(context, caller.signal), /the caller has gone/);
  return { ...opened, vf };
}

test("apply() after one that was left half way undoes that first, and once", () =>
  inNode(async (world) => {
    const { port, vf, handles } = await leftBehind(world);
    await assert.rejects(vf.apply(), /the PF is broken/);
    port.refuses = false;
    const written: unknown[] = [];
    const write = port.write.bind(port);
    port.write = async (index, change) => {
      written.push(change.vlan);
      await write(index, change);
    };
    for (let refreshes = 0; refreshes < 2; refreshes += 1) await vf.apply(contextOf(6));
    assert.deepEqual([written, await namesIn(world.pod)], [[0, 6], ["nsm-1"]]);
    await vf.release();
    assert.equal(handles(), 0);
  }));

test("a VF that was left half way into one namespace is not given on there when its client comes from another", () =>
  inNode(async (world) => {
    const other = world.openPod();
    const { port, vf } = await leftBehind(world);
    port.refuses = false;
    await vf.applyIn(other);
    assert.deepEqual([await namesIn(world.pod), await namesIn(other)], [[], ["nsm-1"]]);
    await vf.release();
  }));

test("release() of a VF that no client has had has no other device made; of one whose PF resists, and of one that is gone, it ends", () =>
  inNode(async (world) => {
    const untouched = nodeIn(world);
    const unused = untouched.take();
    await unused.prepare();
    await unused.release();
    assert.deepEqual([untouched.stateOf(), untouched.handles()], ["idle", 0]);
    const resisting = nodeIn(world);
    const vf = resisting.take();
    await vf.apply();
    resisting.port.refuses = true;
    await vf.release();
    assert.deepEqual([resisting.stateOf(), resisting.handles(), resisting.node.watched], ["reclaiming", 0, 0]);
    await world.renew();
    const gone = nodeIn(world);
    const lost = gone.take();
    await lost.apply();
    await world.unplug();
    gone.node.isPresent = false;
    await lost.release();
    assert.deepEqual([gone.stateOf(), gone.codes()], ["idle", []]);
  }));

for (const [says, change] of [
  ["its VF", { isPresent: false }],
  ["its driver", { driver: "vfio-pci" }],
] as const) {
  test(`a client that comes from another namespace is not refused where its link has gone with ${says}`, () =>
    inNode(async (world) => {
      const other = world.openPod();
      const { node, take } = nodeIn(world);
      const vf = take();
      await vf.apply();
      await world.unplug();
      Object.assign(node, change);
      await assert.rejects(
        vf.applyIn(other),
        /the host has no link/,
        "what it had is let go of, and it wants a new one",
      );
      vf.close();
    }));
}

test("apply() does not touch a VF that the host has begun to use since it was bound, and withholds one that is another device's link", () =>
  inNode(async (world) => {
    const used = nodeIn(world);
    const vf = used.take();
    await vf.prepare();
    used.node.hostUse = "vf0 has address 10.0.0.9/24";
    world.steps.length = 0;
    await assert.rejects(vf.apply(), { fault: { kind: "host-uses-it", how: used.node.hostUse } });
    assert.deepEqual(world.steps, []);
    await vf.release();
    const foreign = nodeIn(world);
    const other = foreign.take();
    await other.prepare();
    await world.unplug();
    await world.plug("0000:02:00.0", "vf0");
    await assert.rejects(other.apply(), /vf0/);
    assert.deepEqual(foreign.codes(), ["foreign-link"]);
    await other.release();
  }));

test("prepare() waits for what the way in waits for: a link that cannot be verified just now is bound all the same", () =>
  inNode(async (world) => {
    const { take, stateOf } = nodeIn(world);
    const vf = take();
    world.links.verified = () => Promise.reject(new Error("the kernel does not say"));
    await vf.prepare();
    assert.equal(stateOf(), "preparing");
    vf.close();
  }));

test("after a restart a client continues where it was: nothing is bound, and its end has another device made, with what the host had set", () =>
  inNode(async (world) => {
    const port = willingPort();
    const { node, kept, take, clean, codes, stateOf, handles } = nodeIn(world, await leftOf(world, port), port);
    const vf = take();
    await vf.prepare();
    assert.deepEqual([node.done, codes()], [[], ["pending-netns"]]);
    world.steps.length = 0;
    await vf.apply(contextOf(6));
    assert.deepEqual([codes(), stateOf(), node.watched, port.settings.vlan], [[], "ready", 1, 6]);
    assert.ok(!world.steps.some((step) => step.includes("move")), world.steps.join());
    assert.ok(kept.length > 0 && kept.every(({ state }) => state.kept?.boot === "the simulated one"));
    await vf.release();
    assert.deepEqual([codes(), handles(), await namesIn(world.pod)], [["being-cleaned"], 0, []]);
    await clean();
    assert.deepEqual([port.settings.vlan, await namesIn(world.host)], [0, ["vf0"]]);
  }));

for (const then of ["apply", "release"] as const) {
  test(`after a restart a VF that has come back is made what it was before ${then}, and cleaned in the end`, () =>
    inNode(async (world) => {
      const port = willingPort();
      const left = await leftOf(world, port);
      const [link] = (await world.pod.rtnl.links()).filter(({ name }) => name === "nsm-1");
      await world.pod.rtnl.setLink(link?.index ?? 0, { netns: world.host.netns, name: "vf0" });
      const { take, codes } = nodeIn(world, left, port);
      const vf = take();
      if (then === "apply") {
        await vf.apply(contextOf(6));
        assert.deepEqual([codes(), port.settings.vlan, await namesIn(world.pod)], [[], 6, ["nsm-1"]]);
      }
      await vf.release();
      assert.deepEqual([codes(), port.settings.vlan], [["being-cleaned"], 0]);
    }));
}

test("after a restart a VF that has come back and cannot go out again is cleaned all the same: a client has had it", () =>
  inNode(async (world) => {
    const port = willingPort();
    const left = await leftOf(world, port);
    const [link] = (await world.pod.rtnl.links()).filter(({ name }) => name === "nsm-1");
    await world.pod.rtnl.setLink(link?.index ?? 0, { netns: world.host.netns, name: "vf0" });
    const { node, take, codes } = nodeIn(world, left, port);
    const vf = take();
    node.hostUse = "vf0 has address 10.0.0.9/24";
    await assert.rejects(vf.apply(), { fault: { kind: "host-uses-it", how: node.hostUse } });
    await vf.release();
    assert.deepEqual(codes(), ["being-cleaned"]);
  }));

test("after a restart a VF whose client does not come any more is taken from it by its driver, wherever it is", () =>
  inNode(async (world) => {
    const port = willingPort();
    const { take, codes } = nodeIn(world, await leftOf(world, port), port);
    await take(world.openPod()).release();
    assert.deepEqual([codes(), await namesIn(world.pod)], [["being-cleaned"], ["nsm-1"]]);
  }));

test("after a restart a client in another namespace gets nothing of what is in the former one, and its end touches neither", () =>
  inNode(async (world) => {
    const other = world.openPod();
    const port = willingPort();
    const { take, codes } = nodeIn(world, await leftOf(world, port), port);
    const vf = take(other);
    world.steps.length = 0;
    await assert.rejects(vf.apply(), /vf0/);
    assert.deepEqual([codes(), await namesIn(world.pod), await namesIn(other)], [["pending-netns"], ["nsm-1"], []]);
    await vf.release();
    assert.deepEqual([codes(), await namesIn(world.pod)], [["being-cleaned"], ["nsm-1"]]);
    assert.ok(!world.steps.some((step) => step.startsWith("pod")), world.steps.join());
  }));

test("after a restart nothing is written to a link that sysfs has for the VF, and that is another device's", () =>
  inNode(async (world) => {
    const port = willingPort();
    const left = await leftOf(world, port);
    await world.plug("0000:02:00.0", "vf0");
    const { take } = nodeIn(world, left, port);
    const vf = take();
    world.steps.length = 0;
    await assert.rejects(vf.release(), /link vf0 .* sits on PCI function 0000:02:00.0/);
    assert.deepEqual([world.steps, port.settings.vlan], [[], 5]);
    vf.close();
  }));
