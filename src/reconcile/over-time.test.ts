// Passes and events over time: what comes while an observation is under way, what is only so for a moment, a stop in the middle.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  first,
  INTERVAL_MS,
  kernelEntry,
  reconciledNode,
  second,
  vfioEntry,
} from "../../test/scenes/reconciled-node.ts";
import { settled } from "../nsm/testing/fakes.ts";

test("an event has those VFs observed whose change is awaited, and no others", async () => {
  const { inventory, vf, clock, give, say, of, follow, journal } = reconciledNode();
  const { stop } = await follow();
  const observations = () => [vf(first).observations, vf(second).observations];
  const heard = async (devpath: string, subsystem: string) => {
    const before = observations();
    say({ devpath, subsystem });
    await clock.pass(20);
    return observations().map((count, index) => count - (before[index] ?? 0));
  };
  const netdev = `${of(first)}/net/eth0`;
  assert.deepEqual(await heard(netdev, "net"), [0, 0], "nothing is awaited");
  inventory.raise(first, { code: "netdev-missing" });
  vf(first).link = undefined;
  assert.deepEqual(await heard(netdev, "net"), [1, 0]);
  assert.deepEqual(await heard(of(first), "pci"), [1, 0]);
  assert.deepEqual(await heard(of(first), "hwmon"), [0, 0]);
  assert.deepEqual(await heard(`${of(second)}/net/eth0`, "net"), [0, 0]);
  inventory.clear(first, "netdev-missing");
  give(first, "c1");
  assert.deepEqual(await heard(netdev, "net"), [0, 0], "its client has it");
  inventory.raise(first, { code: "pending-netns", ending: "not" });
  assert.deepEqual(await heard(netdev, "net"), [1, 0]);
  inventory.clear(first, "pending-netns");
  journal.vfs.set(first, kernelEntry(first));
  assert.deepEqual(await heard(netdev, "net"), [0, 0], "its client has it still");
  inventory.setState("c1", "reclaiming");
  inventory.release("c1");
  await settled();
  assert.deepEqual(await heard(netdev, "net"), [1, 0], "it is out, and no connection holds it");
  await stop();
});

test("events that were lost have every VF observed, once, and the next loss again", async () => {
  const { vf, clock, say, follow } = reconciledNode();
  const { stop } = await follow();
  const before = vf(first).observations;
  const timers = clock.timerCount;
  for (let times = 0; times < 3; times += 1) say({ action: "lost", subsystem: "" });
  assert.equal(clock.timerCount, timers + 1);
  await clock.pass(20);
  assert.deepEqual([vf(first).observations, vf(second).observations], [before + 1, before + 1]);
  say({ action: "lost", subsystem: "" });
  await clock.pass(20);
  assert.equal(vf(first).observations, before + 2);
  await stop();
});

test("two events within a moment have both VFs observed, and what was observed is not observed again for it", async () => {
  const { inventory, vf, clock, say, of, follow } = reconciledNode();
  const { stop } = await follow();
  for (const address of [first, second]) {
    inventory.raise(address, { code: "netdev-missing" });
    vf(address).link = undefined;
  }
  const before = vf(first).observations;
  say({ devpath: of(first) });
  say({ devpath: of(second) });
  await clock.pass(20);
  assert.deepEqual([vf(first).observations, vf(second).observations], [before + 1, before + 1]);
  say({ devpath: of(second) });
  await clock.pass(20);
  assert.deepEqual([vf(first).observations, vf(second).observations], [before + 1, before + 2]);
  await stop();
});

test("one VF is observed at a time, whatever requests it, and a pass waits for the one before", async () => {
  const { vf, clock, counts, say, follow } = reconciledNode();
  const { stop } = await follow();
  counts.mostUnderWay = 0;
  const gate = Promise.withResolvers<void>();
  vf(first).answering = gate.promise;
  const [before, other] = [vf(first).observations, vf(second).observations];
  say({ action: "lost", subsystem: "" });
  await clock.pass(20);
  await clock.pass(2 * INTERVAL_MS);
  assert.deepEqual([vf(first).observations - before, vf(second).observations - other], [1, 0]);
  gate.resolve();
  await settled();
  await settled();
  assert.equal(counts.mostUnderWay, 1);
  assert.deepEqual([vf(first).observations - before, vf(second).observations - other], [2, 2]);
  await stop();
});

test("a stop waits for the observation that is under way, acts on nothing more, and leaves no timer", async () => {
  for (const comes of ["a VF that differs", "an event"] as const) {
    const { vf, clock, counts, codes, say, follow } = reconciledNode();
    const { stop } = await follow();
    const gate = Promise.withResolvers<void>();
    vf(first).answering = gate.promise;
    await clock.pass(INTERVAL_MS);
    if (comes === "an event") say({ action: "lost", subsystem: "" });
    else vf(first).driver = "vfio-pci";
    const observations = vf(second).observations;
    let isStopped = false;
    const stopping = stop().then(() => {
      isStopped = true;
    });
    await settled();
    assert.equal(isStopped, false);
    gate.resolve();
    await stopping;
    await settled();
    assert.equal(vf(second).observations, observations, comes);
    assert.deepEqual([clock.timerCount, counts.listeners], [0, 0], comes);
    assert.ok(!codes(second).includes("mismatch"));
  }
});

test("a stop ends what listens to the inventory", async () => {
  const { inventory, journal, codes, follow } = reconciledNode();
  const { stop } = await follow();
  await stop();
  journal.vfs.set(first, kernelEntry(first));
  inventory.raise(first, { code: "netdev-unseen" });
  await settled();
  assert.deepEqual(codes(), ["netdev-unseen"]);
});

test("what a Request or a Close changes during an observation is theirs: another state, another connection, another condition", async () => {
  const { inventory, vf, clock, done, running, give, follow } = reconciledNode();
  const { stop } = await follow();
  give(first, "c1");
  inventory.raise(first, { code: "pending-netns", ending: "not" });
  const during = async (change: () => void) => {
    const gate = Promise.withResolvers<void>();
    vf(first).answering = gate.promise;
    await clock.pass(INTERVAL_MS);
    change();
    gate.resolve();
    vf(first).answering = Promise.resolve();
    await settled();
    return done.splice(0);
  };
  running.ending = new Promise(() => {});
  done.length = 0;
  assert.deepEqual(await during(() => inventory.setState("c1", "reclaiming")), []);
  assert.deepEqual(
    await during(() => {
      inventory.release("c1");
      give(first, "c2");
      inventory.setState("c2", "reclaiming");
    }),
    [],
  );
  assert.deepEqual(await during(() => inventory.clear(first, "pending-netns")), [], "its namespace has come");
  inventory.raise(first, { code: "pending-netns", ending: "not" });
  assert.deepEqual(await during(() => {}), ["end c2"]);
  await stop();
});

test("an observation that fails changes nothing, is tried again, and at the start it is taken for the worst", async () => {
  const { vf, clock, failing, codes, stateOf, journal, connection, follow } = reconciledNode();
  failing.add("glance");
  journal.vfs.set(first, kernelEntry(first));
  journal.left.set("c1", connection("c1"));
  const { continued, stop } = await follow();
  assert.deepEqual([continued, stateOf()], [[], "quarantined"], "no client gets what may be out");
  await clock.pass(3 * INTERVAL_MS);
  assert.deepEqual([codes(second), stateOf(second)], [[], "idle"]);
  const { observations } = vf(second);
  await clock.pass(INTERVAL_MS);
  assert.equal(vf(second).observations, observations + 1);
  await stop();
});

test("the entry that came between the start and the first pass is compared before any client can get its VF", async () => {
  const { vf, done, journal, connection, codes, reconciler, running, stateOf, lose, resync, tokenOf } =
    reconciledNode();
  const tokenId = tokenOf(first);
  lose();
  journal.vfs.set(first, { ...kernelEntry(first), tokenId });
  journal.left.set("c1", connection("c1", tokenId));
  vf(first).link = undefined;
  assert.deepEqual(await reconciler.start(), []);
  resync();
  const stop = reconciler.follow(running);
  assert.deepEqual([stateOf(), codes()], ["quarantined", ["unsettled"]]);
  await settled();
  assert.deepEqual([done.includes("continue c1 ready"), codes()], [true, ["pending-netns"]]);
  await stop();
});

test("a connection that cannot be dropped at the start, or with its VF, ends nothing: the journal makes up for it", async () => {
  const { clock, failing, journal, connection, lose, follow } = reconciledNode();
  failing.add("drop");
  journal.left.set("c9", connection("c9"));
  const gone = kernelEntry(first, "c9");
  const { stop } = await follow();
  lose();
  journal.vfs.set(first, gone);
  await clock.pass(INTERVAL_MS);
  await clock.pass(14 * INTERVAL_MS);
  assert.deepEqual([...journal.vfs.keys()], [first], "the node has it");
  await stop();
});

test("an entry is forgotten when the node has been without its VF for twelve passes on end, not when that came back in between", async () => {
  const { vf, clock, done, log, journal, connection, lose, resync, follow } = reconciledNode();
  journal.vfs.set(second, kernelEntry(second));
  journal.left.set("c1", connection("c1"));
  Object.assign(vf(second), { isPresent: false, link: undefined });
  const { stop } = await follow();
  done.length = 0;
  lose();
  await clock.pass(11 * INTERVAL_MS);
  resync();
  await clock.pass(INTERVAL_MS);
  lose();
  await clock.pass(12 * INTERVAL_MS);
  assert.deepEqual([...journal.vfs.keys()], [second]);
  await clock.pass(INTERVAL_MS);
  assert.deepEqual([...journal.vfs.keys()], []);
  assert.deepEqual(done.slice(-2), [`forget ${second}`, "drop c1"]);
  assert.deepEqual(log.of("vf-repaired").at(-1), { vf: second, repair: "forget", connection: "c1" });
  await stop();
});

test("the entry of a VF that a pod has by VFIO is not forgotten with its VF, nor that of one that the node does not show", async () => {
  const { vf, clock, failing, journal, lose, follow } = reconciledNode();
  for (const address of [first, second]) Object.assign(vf(address), { isPresent: false, link: undefined });
  journal.vfs.set(second, kernelEntry(second));
  const { stop } = await follow();
  lose();
  journal.vfs.set(first, vfioEntry(first));
  failing.add("presence");
  await clock.pass(14 * INTERVAL_MS);
  assert.deepEqual([...journal.vfs.keys()].sort(), [first, second]);
  failing.clear();
  await clock.pass(14 * INTERVAL_MS);
  assert.deepEqual([...journal.vfs.keys()], [first]);
  await stop();
});

test("a VF whose entry is forgotten while the two are being compared is free", async () => {
  const { vf, clock, journal, codes, stateOf, lose, resync, follow } = reconciledNode();
  Object.assign(vf(first), { link: undefined });
  const { stop } = await follow();
  lose();
  journal.vfs.set(first, kernelEntry(first));
  Object.assign(vf(first), reconciledNode().vf(first));
  const gate = Promise.withResolvers<void>();
  vf(first).answering = gate.promise;
  resync();
  assert.deepEqual([stateOf(), codes()], ["quarantined", ["unsettled"]]);
  journal.vfs.delete(first);
  gate.resolve();
  await clock.pass(INTERVAL_MS);
  assert.deepEqual([stateOf(), codes()], ["idle", []]);
  await stop();
});
