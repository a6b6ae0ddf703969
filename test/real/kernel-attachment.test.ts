import assert from "node:assert/strict";
import { test } from "node:test";
import { openFiles } from "../sandbox/scenes/story.ts";
import { context, contextOf, nodeOf, StubbornPort } from "../scenes/attached-node.ts";
import { inWorld, linkNamed, openPlace, picture, type World } from "../scenes/namespaces.ts";

const picturesOf = async (world: World) => [await picture(world.host), await picture(world.pod)];

/** A client that goes while its VF is on its way in, from a PF that takes nothing back at first. */
async function leftBehind(world: World) {
  const caller = new AbortController();
  const port = new StubbornPort(() => caller.abort(new Error("the caller has gone")));
  const { inventory, take, clean } = nodeOf(world, port);
  const vf = take();
  await assert.rejects(vf.apply(context, caller.signal), /the caller has gone; and cannot restore its vf vlan/);
  assert.equal(port.settings.vlan, 5, "the VLAN of the client is still there");
  return { inventory, port, vf, clean };
}

test("apply() that fails and cannot be undone at once is undone by the next release()", (t) =>
  inWorld(t, async (world) => {
    const before = await picturesOf(world);
    const { inventory, port, vf } = await leftBehind(world);
    await assert.rejects(vf.release(), /the PF is broken/);
    assert.equal(inventory.ofConnection("c1")?.state, "reclaiming");
    port.refuses = false;
    await vf.release();
    assert.equal(port.settings.vlan, 0);
    assert.equal(inventory.snapshot()[0]?.state, "idle");
    assert.deepEqual(await picturesOf(world), before);
  }));

test("apply() after one that failed undoes what that left, and then begins again", (t) =>
  inWorld(t, async (world) => {
    const before = await picturesOf(world);
    const { port, vf, clean } = await leftBehind(world);
    await assert.rejects(vf.apply(), /the PF is broken/);
    port.refuses = false;
    await vf.apply(contextOf(6));
    assert.equal(port.settings.vlan, 6);
    assert.equal((await world.pod.rtnl.linkByName("nsm-1"))?.up, true);
    await vf.release();
    await clean();
    assert.deepEqual([await picturesOf(world), port.settings.vlan], [before, 0]);
  }));

test("release() of what a previous instance attached keeps no handle of the client's namespace", (t) =>
  inWorld(t, async (world) => {
    const before = await picturesOf(world);
    const port = new StubbornPort(() => {});
    const earlier = nodeOf(world, port);
    const first = earlier.take();
    await first.apply();
    first.close();
    const last = earlier.kept.at(-1) ?? assert.fail("nothing was kept");
    const { inventory, take, clean } = nodeOf(world, port, last);
    const vf = take();
    inventory.setState("c1", "ready");
    const open = openFiles("net");
    await vf.receiveFiles();
    await vf.receiveFiles();
    assert.equal(openFiles("net").length, open.length + 1);
    await vf.release();
    assert.deepEqual(openFiles("net"), open);
    await assert.rejects(clean(), /the PF is broken/);
    port.refuses = false;
    await clean();
    assert.deepEqual([await picturesOf(world), port.settings.vlan], [before, 0]);
  }));

test("release() of what a previous instance attached changes nothing in another namespace than the one it was left in", (t) =>
  inWorld(t, async (world) => {
    const port = new StubbornPort(() => {});
    port.refuses = false;
    const earlier = nodeOf(world, port);
    const first = earlier.take();
    const policies = [{ from: "10.0.0.1", routes: [{ prefix: "0.0.0.0/0" }] }];
    await first.apply(contextOf(5, { policies }));
    first.close();
    const last = earlier.kept.at(-1) ?? assert.fail("nothing was kept");
    const { inventory, take, clean } = nodeOf(world, port, last);
    const other = openPlace();
    const vf = take(other);
    inventory.setState("c1", "ready");
    t.after(() => {
      other.rtnl.close();
      other.netns.close();
    });
    const [rule] = await world.pod.rtnl.rules(({ protocol }) => protocol === 110);
    await other.rtnl.addRule(rule ?? assert.fail("there is no rule")); // of another connection, with a table of the same number
    const before = await picture(other);
    await vf.receiveFiles();
    await vf.release();
    assert.deepEqual([await picture(other), port.settings.vlan], [before, 5]);
    await clean();
    assert.deepEqual([await picture(other), port.settings.vlan], [before, 0]);
    assert.equal((await linkNamed(world.host, "vf0")).up, false);
    assert.equal(await world.pod.rtnl.linkByName("nsm-1"), undefined, "its driver has taken it away");
  }));
