// A VF whose name another link of the host has taken meanwhile: it serves under another one, and has its own when that is free.
import assert from "node:assert/strict";
import { test } from "node:test";
import { first, INTERVAL_MS, kernelEntry, reconciledNode, second } from "../../test/scenes/reconciled-node.ts";
import { conditionOf } from "../inventory/index.ts";
import type { Link, NetlinkEvent, Netns, Rtnl } from "../kernel/index.ts";
import type { StoredEntry } from "../mechanisms/journal-entries.ts";
import { settled } from "../nsm/testing/fakes.ts";
import { TakenNames } from "./taken-names.ts";

const NAME = "enp1s0f0v0";
const STAND_IN = "vf0000-01-10-0";
const bridge = { index: 70, name: NAME, altNames: [] } as unknown as Link;
const goneBridge: NetlinkEvent = { kind: "gone-link", link: bridge };
/** Less than a pass comes after. */
const SOON_MS = 100;

/** Its client has left it, and a bridge of the host has its name. */
async function underOtherName(disk = new Map<string, StoredEntry>()) {
  const node = reconciledNode(2, disk);
  node.journal.vfs.set(first, { ...kernelEntry(first), isLeft: true });
  node.vf().madeName = "eth0";
  node.others.push(bridge);
  const { stop } = await node.follow();
  await node.clock.pass(SOON_MS);
  return { node, stop, name: () => node.vf().link?.name };
}

test("a VF whose name another link has serves under another one, and says so", async () => {
  const disk = new Map<string, StoredEntry>();
  const { node, stop, name } = await underOtherName(disk);
  assert.deepEqual([node.stateOf(), name(), disk.size], ["idle", STAND_IN, 1]);
  const record = node.inventory.get(first) ?? assert.fail();
  assert.deepEqual(conditionOf(record, "name-taken"), { code: "name-taken", name: NAME });
  assert.deepEqual(node.log.of("vf-not-as-before"), [
    { vf: first, left: `it is called ${STAND_IN}, for ${NAME} is another link's name` },
  ]);
  await node.clock.pass(3 * INTERVAL_MS);
  assert.deepEqual([name(), node.log.of("vf-repaired")], [STAND_IN, []]);
  await stop();
  assert.deepEqual([node.counts.sockets, node.counts.listeners], [0, 0]);
});

for (const [what, event] of [
  ["when the kernel says that the other link is gone", goneBridge],
  ["when the other link is renamed", { kind: "new-link", link: { ...bridge, name: "br0" } }],
  ["when news were lost", { kind: "lost" }],
] as const satisfies readonly (readonly [string, NetlinkEvent])[]) {
  test(`a VF has its own name again ${what}, at once`, async () => {
    const disk = new Map<string, StoredEntry>();
    const { node, stop, name } = await underOtherName(disk);
    node.others.length = 0;
    node.sayOfLink(event);
    await node.clock.pass(SOON_MS);
    assert.deepEqual([name(), node.stateOf(), disk.size], [NAME, "idle", 0]);
    assert.deepEqual(node.codes(), ["recently-restored"]);
    assert.deepEqual(node.log.of("vf-repaired"), [{ vf: first, repair: "restore" }]);
    await stop();
  });
}

test("news of other links, and of this one that keeps the name, are no reason to touch the VF, and the next ones are heard", async () => {
  const { node, stop, name } = await underOtherName();
  const { observations } = node.vf();
  node.sayOfLink({ kind: "new-link", link: { ...bridge, index: 71, name: "veth7" } });
  await node.clock.pass(SOON_MS);
  assert.equal(node.vf().observations, observations);
  node.done.length = 0;
  node.sayOfLink({ kind: "new-link", link: bridge });
  await node.clock.pass(SOON_MS);
  assert.deepEqual([node.vf().observations, node.done], [observations + 1, []]);
  node.others.length = 0;
  node.sayOfLink(goneBridge);
  await node.clock.pass(SOON_MS);
  assert.equal(name(), NAME);
  await stop();
});

test("a name that goes from one link to another is waited for on", async () => {
  const { node, stop, name } = await underOtherName();
  node.others.splice(0, 1, { ...bridge, index: 72 });
  node.sayOfLink(goneBridge);
  await node.clock.pass(SOON_MS);
  assert.equal(name(), STAND_IN);
  node.others.length = 0;
  node.sayOfLink({ kind: "gone-link", link: { ...bridge, index: 72 } });
  await node.clock.pass(SOON_MS);
  assert.equal(name(), NAME);
  await stop();
});

test("a name that the kernel refuses for another reason is tried once, not at each pass", async () => {
  const { node, stop } = await underOtherName();
  node.failing.add("name");
  node.others.length = 0;
  node.sayOfLink(goneBridge);
  await node.clock.pass(SOON_MS);
  assert.deepEqual([node.stateOf(), node.codes().includes("name-taken")], ["idle", false]);
  node.done.length = 0;
  await node.clock.pass(3 * INTERVAL_MS);
  assert.deepEqual(node.done, []);
  await stop();
});

test("a VF to which the operator gives its name is as it was", async () => {
  const disk = new Map<string, StoredEntry>();
  const { node, stop } = await underOtherName(disk);
  const { link } = node.vf();
  node.others.length = 0;
  node.vf().link = link && { ...link, name: NAME };
  node.sayOfLink(goneBridge);
  await node.clock.pass(SOON_MS);
  assert.deepEqual([node.codes(), disk.size], [["recently-restored"], 0]);
  await stop();
});

test("a name that is given back holds up no repair of another VF", async () => {
  const { node, stop } = await underOtherName();
  node.others.length = 0;
  const reported = Promise.withResolvers<void>();
  node.inventory.onChange(() => {
    if (node.codes().includes("drifted")) node.vf().reporting = reported.promise;
  });
  node.sayOfLink(goneBridge);
  await node.clock.pass(SOON_MS);
  node.give(second, "c2");
  node.inventory.raise(second, { code: "pending-netns", ending: "not" });
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.codes().includes("drifted"), node.done.includes("end c2")], [true, true]);
  reported.resolve();
  await stop();
});

/** Another VF that had that name when a client got it. */
const outUnderName = { ...kernelEntry(first, "c2"), address: second };

test("a VF leaves its name to another one that has it when its client leaves, and has it when that comes back no more", async () => {
  const { node, stop, name } = await underOtherName();
  node.journal.vfs.set(second, outUnderName);
  node.give(second, "c2");
  node.others.length = 0;
  node.sayOfLink(goneBridge);
  await node.clock.pass(3 * INTERVAL_MS);
  assert.deepEqual([name(), node.codes().includes("name-taken"), node.log.of("vf-repaired")], [STAND_IN, true, []]);
  node.journal.vfs.delete(second);
  await node.clock.pass(INTERVAL_MS);
  assert.equal(name(), NAME);
  await stop();
});

test("a VF takes the name of another one that only the journal has with a client, and does not wait for it", async () => {
  const node = reconciledNode(2);
  node.journal.vfs.set(second, outUnderName);
  node.inventory.raise(second, { code: "host-use", how: "it is a port of br0" });
  node.journal.vfs.set(first, { ...kernelEntry(first), isLeft: true });
  const { stop } = await node.follow();
  await node.clock.pass(SOON_MS);
  assert.deepEqual([node.vf().link?.name, node.codes()], [NAME, ["recently-restored"]]);
  await stop();
});

test("a VF whose name a free one has is called otherwise at once, and does not promise the name to itself when a client has it", async () => {
  const disk = new Map<string, StoredEntry>();
  const node = reconciledNode(2, disk);
  node.journal.vfs.set(first, { ...kernelEntry(first), isLeft: true });
  node.vf().madeName = "eth0";
  node.vf(second).link = { ...(node.vf(second).link ?? assert.fail()), name: NAME };
  const { stop } = await node.follow();
  await node.clock.pass(SOON_MS);
  assert.deepEqual([node.vf().link?.name, node.stateOf()], [STAND_IN, "idle"]);
  assert.equal(node.journal.unrestored.isNameTaken(first), true);
  assert.equal(reconciledNode(2, disk).journal.unrestored.isNameTaken(first), true, "after a restart, too");
  await stop();
});

test("nor does it take the name at the next start", async () => {
  const disk = new Map<string, StoredEntry>();
  await (await underOtherName(disk)).stop();
  const node = reconciledNode(2, disk);
  const { link } = node.vf();
  node.vf().link = link && { ...link, name: STAND_IN };
  node.journal.vfs.set(second, { ...outUnderName, tokenId: node.tokenOf(second) });
  node.journal.left.set("c2", node.connection("c2"));
  node.vf(second).link = undefined;
  const { stop } = await node.follow();
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.vf().link?.name, node.stateOf(), disk.size], [STAND_IN, "idle", 1]);
  await stop();
});

test("a device that the kernel has given the name of a VF with a client does not keep it", async () => {
  const node = reconciledNode(2);
  node.journal.vfs.set(second, outUnderName);
  node.give(second, "c2");
  node.journal.vfs.set(first, { ...kernelEntry(first), isLeft: true });
  const { stop } = await node.follow();
  await node.clock.pass(SOON_MS);
  assert.deepEqual([node.vf().link?.name, node.codes().includes("name-taken")], [STAND_IN, true]);
  await stop();
});

test("TakenNames.isFree() sees what happens while it begins to listen", async () => {
  const answers = [bridge, undefined];
  const rtnl = { linkByName: async () => answers.shift(), watch: () => () => {}, close() {} } as unknown as Rtnl;
  const names = new TakenNames({ netns: {} as Netns, openRtnl: () => rtnl }, () => {});
  assert.deepEqual([await names.isFree(NAME, 7), answers], [true, []]);
  names.close();
});

test("TakenNames keeps no socket where it cannot listen, and listens when it can", async () => {
  const done: string[] = [];
  const rtnl = {
    linkByName: async () => undefined,
    watch() {
      if (done.length === 0) throw new Error("too many open files");
      return () => done.push("stop");
    },
    close: () => done.push("close"),
  } as unknown as Rtnl;
  const names = new TakenNames({ netns: {} as Netns, openRtnl: () => rtnl }, () => {});
  await assert.rejects(names.isFree(NAME, 7), /too many open files/);
  assert.deepEqual(done, ["close"]);
  assert.equal(await names.isFree(NAME, 7), true);
  names.close();
  assert.deepEqual(done, ["close", "stop", "close"]);
});

test("a name that cannot be looked up is not free, keeps no VF from being observed, and is looked up again", async () => {
  const { node, stop, name } = await underOtherName();
  node.failing.add("lookup");
  node.others.length = 0;
  node.sayOfLink(goneBridge);
  await node.clock.pass(SOON_MS);
  assert.deepEqual([name(), node.log.of("vf-not-observed")], [STAND_IN, []]);
  node.failing.clear();
  await node.clock.pass(INTERVAL_MS);
  assert.equal(name(), NAME);
  await stop();
});

test("a VF that a client has keeps its name until that is over", async () => {
  const { node, stop, name } = await underOtherName();
  node.give(first, "c2");
  node.others.length = 0;
  node.sayOfLink(goneBridge);
  await node.clock.pass(2 * INTERVAL_MS);
  assert.equal(name(), STAND_IN);
  node.inventory.setState("c2", "reclaiming");
  node.inventory.release("c2");
  await node.clock.pass(SOON_MS);
  assert.equal(name(), NAME);
  await stop();
});

test("a VF that a Request takes while its name is asked for is left to that", async () => {
  const { node, stop, name } = await underOtherName();
  const found = Promise.withResolvers<void>();
  node.vf().finding = found.promise;
  node.others.length = 0;
  node.sayOfLink(goneBridge);
  await node.clock.pass(SOON_MS);
  node.done.length = 0;
  node.give(first, "c2");
  found.resolve();
  await node.clock.pass(SOON_MS);
  assert.deepEqual([node.stateOf(), name(), node.done], ["ready", STAND_IN, []]);
  await stop();
});

test("after a restart the name is tried, and waited for, again", async () => {
  const disk = new Map<string, StoredEntry>();
  const before = await underOtherName(disk);
  await before.stop();
  const node = reconciledNode(2, disk);
  const { link } = node.vf();
  node.vf().link = link && { ...link, name: STAND_IN };
  node.others.push(bridge);
  const { stop } = await node.follow();
  await node.clock.pass(SOON_MS);
  assert.deepEqual([node.stateOf(), node.codes().toSorted()], ["idle", ["name-taken", "not-as-before"]]);
  node.others.length = 0;
  node.sayOfLink(goneBridge);
  await node.clock.pass(SOON_MS);
  await settled();
  assert.deepEqual([node.vf().link?.name, node.codes(), disk.size], [NAME, [], 0]);
  await stop();
});

test("a VF of which nothing was known has the name that udev gives VFs when it is free, over restarts, and nothing else is undone then", async () => {
  for (const isRestarted of [false, true]) {
    const disk = new Map<string, StoredEntry>();
    let node = reconciledNode(2, disk);
    const { link } = node.vf();
    Object.assign(node.vf(), { link: undefined, madeName: "eth0" });
    node.others.push(bridge);
    let { stop } = await node.follow();
    node.vf().link = link && { ...link, index: 17, name: "nsm-1" };
    node.say({ devpath: node.of(first) });
    await node.clock.pass(SOON_MS);
    assert.deepEqual([node.stateOf(), node.vf().link?.name, disk.size], ["idle", STAND_IN, 1]);
    const record = node.inventory.get(first) ?? assert.fail();
    assert.deepEqual(conditionOf(record, "name-taken"), { code: "name-taken", name: NAME });
    if (isRestarted) {
      await stop();
      const before = node.vf();
      node = reconciledNode(2, disk);
      node.vf().link = before.link;
      node.others.push(bridge);
      ({ stop } = await node.follow());
      await node.clock.pass(SOON_MS);
    }
    node.vf().settings = { ...node.vf().settings, vlan: 100 };
    node.others.length = 0;
    node.sayOfLink(goneBridge);
    await node.clock.pass(SOON_MS);
    assert.deepEqual([node.vf().link?.name, node.vf().settings.vlan, node.codes(), disk.size], [NAME, 100, [], 0]);
    await stop();
  }
});
