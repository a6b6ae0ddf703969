// Many VFs that are cleaned after their clients at once.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  addresses,
  FIRST_MADE,
  first,
  INTERVAL_MS,
  kernelEntry,
  reconciledNode,
  second,
} from "../../test/scenes/reconciled-node.ts";
import { settled } from "../nsm/testing/fakes.ts";

/** All of a node with 20 VFs are being cleaned, and no driver has let go of one yet. */
async function manyBeingCleaned() {
  const node = reconciledNode(20);
  const many = addresses(20);
  const bound = Promise.withResolvers<void>();
  for (const address of many) {
    node.journal.vfs.set(address, { ...kernelEntry(address), isLeft: true });
    node.vf(address).binding = bound.promise;
  }
  const { stop } = await node.follow();
  return { node, many, bound, stop };
}

test("of many VFs that are being cleaned eight get their new devices at once, and each of the others has its turn", async () => {
  const { node, many, bound, stop } = await manyBeingCleaned();
  assert.deepEqual([node.counts.mostRenewing, node.stateOf(many[19])], [8, "reclaiming"]);
  await node.clock.pass(INTERVAL_MS); // a pass takes none before its turn
  assert.equal(node.counts.mostRenewing, 8);
  bound.resolve();
  await settled();
  await settled();
  assert.deepEqual([node.counts.mostRenewing, node.counts.renewing, node.journal.vfs.size], [8, 0, 0]);
  assert.deepEqual(new Set(many.map((address) => node.stateOf(address))), new Set(["idle"]));
  assert.equal(node.done.filter((what) => what.startsWith("renew")).length, 20);
  await stop();
});

test("a stop waits for the VFs that are being cleaned, and takes none of those that wait for their turn", async () => {
  const { node, bound, stop } = await manyBeingCleaned();
  const stopping = stop();
  bound.resolve();
  await stopping;
  assert.deepEqual([node.counts.mostRenewing, node.journal.vfs.size], [8, 12]);
  assert.equal(node.done.filter((what) => what.startsWith("renew")).length, 8);
});

for (const [what, isLeft] of [
  ["a cleaning", true],
  ["the restoring of a VF that contradicts the journal", false],
] as const) {
  test(`${what} that is tried again and hangs holds up neither the pass nor the repair of another VF`, async () => {
    const node = reconciledNode();
    node.journal.vfs.set(first, isLeft ? { ...kernelEntry(first), isLeft } : kernelEntry(first));
    node.failing.add("bind");
    const { stop } = await node.follow();
    assert.ok(node.codes().includes("repair-failed"));
    node.failing.clear();
    const bound = Promise.withResolvers<void>();
    node.vf().binding = bound.promise;
    await node.clock.pass(INTERVAL_MS);
    assert.equal(node.counts.renewing, 1);
    node.give(second, "c2");
    node.inventory.raise(second, { code: "pending-netns", ending: "not" });
    await node.clock.pass(INTERVAL_MS);
    assert.deepEqual([node.done.includes("end c2"), node.counts.renewing], [true, 1]);
    bound.resolve();
    await settled();
    assert.deepEqual([node.stateOf(), node.journal.vfs.size], ["idle", 0]);
    await stop();
  });
}

test("of many VFs whose cleaning is tried again eight have their drivers at work at once", async () => {
  const node = reconciledNode(20);
  for (const address of addresses(20)) node.journal.vfs.set(address, { ...kernelEntry(address), isLeft: true });
  node.failing.add("bind");
  const { stop } = await node.follow();
  await settled();
  node.failing.clear();
  const bound = Promise.withResolvers<void>();
  for (const address of addresses(20)) node.vf(address).binding = bound.promise;
  await node.clock.pass(INTERVAL_MS);
  assert.equal(node.counts.renewing, 8);
  bound.resolve();
  await settled();
  await settled();
  assert.deepEqual([node.counts.mostRenewing, node.journal.vfs.size], [8, 0]);
  await stop();
});

test("a VF that a write which hung has left without a driver is bound again when that has returned, and not before", async () => {
  const node = reconciledNode();
  const { stop } = await node.follow();
  node.inventory.raise(first, { code: "write-stuck", error: "it hangs" });
  Object.assign(node.vf(), { driver: undefined, hasStuckWrite: true });
  node.inventory.setDriver(first, undefined);
  await node.clock.pass(2 * INTERVAL_MS);
  assert.ok(!node.done.includes(`bind ${first} kernel`));
  node.vf().hasStuckWrite = false;
  await node.clock.pass(INTERVAL_MS);
  assert.equal(node.done.filter((what) => what === `bind ${first} kernel`).length, 1);
  assert.deepEqual(node.log.of("vf-repaired"), [{ vf: first, repair: "rebind" }]);
  await stop();
});

test("the driver of a VF that is bound again after a write which hung holds up no other one when it hangs, too", async () => {
  const node = reconciledNode();
  const { stop } = await node.follow();
  node.inventory.raise(first, { code: "write-stuck", error: "it hangs" });
  const turn = Promise.withResolvers<void>();
  Object.assign(node.vf(), { driver: undefined, turn: turn.promise });
  node.inventory.setDriver(first, undefined);
  node.give(second, "c2");
  node.inventory.raise(second, { code: "pending-netns", ending: "not" });
  await node.clock.pass(2 * INTERVAL_MS);
  assert.deepEqual([node.done.includes("end c2"), node.done.includes(`bind ${first} kernel`)], [true, false]);
  turn.resolve();
  await settled();
  assert.ok(node.done.includes(`bind ${first} kernel`));
  await stop();
});

test("a VF that its client had left and that comes late is cleaned, with no instant in which another client could get it", async () => {
  const node = reconciledNode();
  const seen: (string | undefined)[] = [];
  node.inventory.onChange(({ vfs }) => vfs.has(first) && seen.push(node.stateOf()));
  const { stop } = await node.follow();
  node.lose();
  node.journal.vfs.set(first, { ...kernelEntry(first), isLeft: true });
  const bound = Promise.withResolvers<void>();
  node.vf().binding = bound.promise;
  seen.length = 0;
  node.resync();
  await settled();
  assert.deepEqual([node.codes(), node.counts.renewing], [["being-cleaned"], 1]);
  // Once idle: it has come, and nothing is known of it yet.
  assert.deepEqual([seen[0], ...new Set(seen.slice(1))], ["idle", "quarantined", "reclaiming"]);
  bound.resolve();
  await settled();
  assert.equal(node.stateOf(), "idle");
  await stop();
});

test("a VF that is cleaned after a restart leaves its former connection alone, which continues without a VF", async () => {
  const node = reconciledNode();
  node.journal.vfs.set(first, { ...kernelEntry(first), isLeft: true });
  const { connectionId, owner, stage } = node.connection("c1");
  node.journal.left.set("c1", { connectionId, owner, stage, mechanism: "NOOP" });
  const { continued, stop } = await node.follow();
  assert.deepEqual([continued.map((one) => one.connectionId), node.stateOf()], [["c1"], "idle"]);
  assert.ok(!node.done.includes("drop c1"), node.done.join());
  await stop();
});

test("a VF that is being cleaned takes the place of one, whatever is said of it meanwhile", async () => {
  const node = reconciledNode(9);
  const [hanging, ...others] = addresses(9);
  const bound = Promise.withResolvers<void>();
  for (const address of addresses(9)) {
    node.journal.vfs.set(address, { ...kernelEntry(address), isLeft: true });
    if (address === hanging) node.vf(address).binding = bound.promise;
  }
  const carrier = { code: "pf-without-carrier", error: "no carrier" } as const;
  const { stop } = await node.follow();
  for (let times = 0; times < 8; times += 1) {
    node.inventory.raise(first, carrier);
    node.inventory.clear(first, carrier.code);
  }
  await settled();
  for (const address of others) node.journal.vfs.set(address, { ...kernelEntry(address), isLeft: true });
  for (const address of others) node.inventory.raise(address, { code: "being-cleaned" });
  await settled();
  assert.deepEqual([...node.journal.vfs.keys()], [hanging]);
  bound.resolve();
  await stop();
});

test("what is heard of VFs that are being cleaned is their own doing, and has none observed", async () => {
  const { node, bound, stop } = await manyBeingCleaned();
  const { timerCount } = node.clock;
  node.say({ devpath: node.of(first) });
  assert.equal(node.clock.timerCount, timerCount);
  bound.resolve();
  await settled();
  await stop();
});

type Node = ReturnType<typeof reconciledNode>;

/** Its client had it last, and called it so. */
function leftByClient(node: Node) {
  node.journal.vfs.set(first, { ...kernelEntry(first), isLeft: true });
  const { link } = node.vf();
  node.vf().link = link && { ...link, index: 17, name: "nsm-1" };
}

const renewals = ({ done }: Node) => done.filter((what) => what.startsWith("renew")).length;
const whyNot = ({ log }: Node) => String(log.of("vf-not-repaired").at(-1)?.["error"]);

test("a stop waits two seconds for a driver that does not let go of a VF, which is left to the next start", async () => {
  const node = reconciledNode();
  leftByClient(node);
  node.vf().binding = new Promise(() => {});
  const { stop } = await node.follow();
  let isStopped = false;
  void stop().then(() => {
    isStopped = true;
  });
  await node.clock.pass(1_900);
  assert.equal(isStopped, false);
  await node.clock.pass(200);
  assert.deepEqual([isStopped, node.journal.vfs.size], [true, 1]);
});

test("a new device that is another one's link is left as it is, and no client gets the VF", async () => {
  const node = reconciledNode();
  leftByClient(node);
  node.foreign.add(FIRST_MADE);
  const { stop } = await node.follow();
  assert.match(whyNot(node), /sits on PCI function 0000:07:00.0/);
  assert.deepEqual([node.stateOf(), node.done.filter((what) => what.startsWith("set "))], ["quarantined", []]);
  await stop();
});

test("a VF whose device was missing takes no other one while another one's link is in its place", async () => {
  const node = reconciledNode();
  const { stop } = await node.follow();
  node.inventory.raise(first, { code: "netdev-missing" });
  node.foreign.add(7);
  await node.clock.pass(INTERVAL_MS);
  assert.match(whyNot(node), /sits on PCI function 0000:07:00.0/);
  assert.deepEqual([node.stateOf(), renewals(node)], ["quarantined", 0]);
  await stop();
});

test("a VF whose device goes while a late write on it is about to be undone is given to no client", async () => {
  const node = reconciledNode();
  leftByClient(node);
  const { stop } = await node.follow();
  node.vf().settings = { mac: "00:00:00:00:00:00", vlan: 9 };
  const reported = Promise.withResolvers<void>();
  node.vf().reporting = reported.promise;
  await node.clock.pass(INTERVAL_MS);
  node.vf().link = undefined;
  reported.resolve();
  await settled();
  assert.match(whyNot(node), /its network device is not in the host/);
  assert.deepEqual([node.stateOf(), renewals(node)], ["quarantined", 1]);
  await stop();
});

test("a new device that has its client's name and takes no other is not taken for what a late write has left", async () => {
  const node = reconciledNode();
  leftByClient(node);
  node.vf().madeName = "nsm-1";
  node.failing.add("name");
  const { stop } = await node.follow();
  assert.deepEqual(node.codes(), ["not-as-before", "recently-restored"]);
  const { length } = node.done;
  await node.clock.pass(2 * INTERVAL_MS);
  assert.deepEqual([node.done.length, node.codes()], [length, ["not-as-before", "recently-restored"]]);
  await stop();
});

test("a VF that another driver has taken from its client has its PF's settings of before, and no device made", async () => {
  const node = reconciledNode();
  leftByClient(node);
  Object.assign(node.vf(), { driver: "vfio-pci", link: undefined, settings: { mac: "02:00:00:00:00:55", vlan: 5 } });
  node.inventory.setDriver(first, "vfio-pci");
  const { stop } = await node.follow();
  assert.deepEqual(node.vf().settings, { mac: "00:00:00:00:00:00", vlan: 0 });
  assert.deepEqual([renewals(node), node.journal.vfs.size], [0, 0]);
  await stop();
});
