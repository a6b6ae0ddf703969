// What a repair makes of a VF, and what it leaves where it fails: nothing of a client, or a VF that no other client gets.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  BOOT,
  first,
  INTERVAL_MS,
  kernelEntry,
  reconciledNode,
  second,
  vfioEntry,
} from "../../test/scenes/reconciled-node.ts";
import { conditionOf } from "../inventory/index.ts";
import { settled } from "../nsm/testing/fakes.ts";

const CLIENTS = { name: "nsm-1", mtu: 1400, address: "02:00:00:00:00:55", up: true };
const IN_HOST = { name: "enp1s0f0v0", mtu: 1500, address: "02:00:00:00:00:07", up: false };
const FREE = { mac: "00:00:00:00:00:00", vlan: 0 };

type Node = ReturnType<typeof reconciledNode>;

/** The kernel has put its link into the host as the client had it, and the journal has it for a connection that is not there. */
function leftByClient(node: Node) {
  node.journal.vfs.set(first, kernelEntry(first));
  const { link } = node.vf();
  node.vf().link = link && { ...link, index: 17, ...CLIENTS };
  node.vf().settings = { mac: FREE.mac, vlan: 5 };
}

const linkOf = ({ vf }: Node) => {
  const { name, mtu, address, up } = vf().link ?? assert.fail("it has no link");
  return { name, mtu, address, up };
};

const renewals = ({ done }: Node) => done.filter((what) => what.startsWith("renew")).length;
const counted = async ({ metrics }: Node, name: string, kind: string) =>
  Number(new RegExp(`^${name}\\{kind="${kind}"\\} (\\d+)`, "m").exec(await metrics.text())?.[1]);

test("a VF that no connection holds becomes what it was before its client, and is free", async () => {
  const node = reconciledNode();
  leftByClient(node);
  node.journal.left.set("c1", node.connection("c1")); // of a token that no resource of this node gave out
  const { stop } = await node.follow();
  assert.deepEqual([linkOf(node), node.vf().settings], [IN_HOST, FREE]);
  assert.deepEqual([node.stateOf(), node.codes(), [...node.journal.vfs.keys()]], ["idle", ["recently-restored"], []]);
  assert.ok(node.done.includes("drop c1"));
  assert.deepEqual(node.log.of("vf-repaired"), [{ vf: first, repair: "restore" }]);
  assert.equal(await counted(node, "nsm_sriov_repairs_total", "restore"), 1);
  assert.equal(node.counts.sockets, 0);
  await stop();
});

test("a VF that resists is given to no client, is tried again, and is free when it gives in", async () => {
  const node = reconciledNode();
  leftByClient(node);
  node.failing.add("vlan");
  const { stop } = await node.follow();
  await node.clock.pass(2 * INTERVAL_MS);
  assert.deepEqual([node.stateOf(), [...node.journal.vfs.keys()]], ["quarantined", [first]]);
  assert.deepEqual(node.codes(), ["contradicts-journal", "repair-failed"]);
  assert.equal(node.log.of("vf-not-repaired").length, 1);
  assert.equal(await counted(node, "nsm_sriov_repairs_failed_total", "restore"), 3);
  node.failing.clear();
  await node.clock.pass(2 * INTERVAL_MS); // the wait has grown
  assert.deepEqual([node.stateOf(), node.codes(), node.vf().settings], ["idle", ["recently-restored"], FREE]);
  await stop();
});

test("what did not work and is not desired any more is no failure any more", async () => {
  const node = reconciledNode();
  leftByClient(node);
  node.failing.add("vlan");
  const { stop } = await node.follow();
  assert.ok(node.codes().includes("repair-failed"));
  node.inventory.raise(first, { code: "host-use", how: "it has an address" });
  await node.clock.pass(INTERVAL_MS);
  assert.ok(!node.codes().includes("repair-failed"));
  await stop();
});

test("a journal that cannot drop the connection keeps no restored VF from the next client", async () => {
  const node = reconciledNode();
  leftByClient(node);
  node.journal.left.set("c1", node.connection("c1"));
  node.failing.add("drop");
  const { stop } = await node.follow();
  assert.deepEqual([node.stateOf(), node.codes()], ["idle", ["recently-restored"]]);
  await stop();
});

test("nothing is written to a link that is another one's, though sysfs has it for the VF", async () => {
  const node = reconciledNode();
  leftByClient(node);
  node.foreign.add(17);
  const { stop } = await node.follow();
  assert.deepEqual([linkOf(node), node.done.filter((what) => what.startsWith("set "))], [CLIENTS, []]);
  assert.equal(node.stateOf(), "quarantined");
  assert.match(String(node.log.of("vf-not-repaired")[0]?.["error"]), /sits on PCI function 0000:07:00.0/);
  assert.equal(node.counts.sockets, 0);
  await stop();
});

test("a VF of the journal that no connection holds is kept from clients while it resists, and contradicts nothing", async () => {
  const node = reconciledNode();
  const { stop } = await node.follow();
  leftByClient(node);
  node.failing.add("vlan");
  await node.clock.pass(2 * INTERVAL_MS);
  assert.deepEqual([node.stateOf(), node.codes()], ["quarantined", ["drifted", "repair-failed"]]);
  assert.deepEqual(node.log.of("vf-contradicts-journal"), []);
  node.failing.clear();
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.stateOf(), node.codes()], ["idle", ["recently-restored"]]);
  await stop();
});

for (const [says, late] of [
  ["a VLAN on its PF", { settings: { mac: FREE.mac, vlan: 5 } }],
  ["an address on its PF", { settings: { mac: "02:00:00:00:00:55", vlan: 0 } }],
  ["the client's name", { name: "nsm-1" }],
  ["the name that it had on its way", { name: "nsm-0102030405" }],
] as const) {
  test(`a write that comes late and leaves ${says} is undone, as long as one may come`, async () => {
    const node = reconciledNode();
    leftByClient(node);
    const { stop } = await node.follow();
    const change = () => {
      const { link } = node.vf();
      if ("settings" in late) node.vf().settings = late.settings;
      else node.vf().link = link && { ...link, name: late.name };
    };
    for (const passes of [1, 10]) {
      await node.clock.pass((passes - 1) * INTERVAL_MS);
      change();
      await node.clock.pass(INTERVAL_MS);
      assert.deepEqual([linkOf(node), node.vf().settings], [IN_HOST, FREE], `after ${passes}`);
      assert.deepEqual([node.codes(), renewals(node)], [["recently-restored"], 1], "and takes no new device");
    }
    await node.clock.pass(INTERVAL_MS);
    assert.deepEqual(node.codes(), []);
    const { length } = node.done;
    change();
    await node.clock.pass(2 * INTERVAL_MS);
    assert.equal(node.done.length, length, "what is so now is another one's doing");
    await stop();
  });
}

for (const [says, change] of [
  ["udev's name", (node: Node) => ({ link: { ...node.vf().link, name: "ens1v0" } })],
  ["its own address as its PF's word", () => ({ settings: { mac: IN_HOST.address, vlan: 0 } })],
] as const) {
  test(`a VF that has got ${says} since it was restored is left alone`, async () => {
    const node = reconciledNode();
    leftByClient(node);
    const { stop } = await node.follow();
    const { length } = node.done;
    Object.assign(node.vf(), change(node));
    await node.clock.pass(2 * INTERVAL_MS);
    assert.deepEqual([node.done.length, node.codes()], [length, ["recently-restored"]]);
    await stop();
  });
}

test("a VF whose client has called it as the host does is left alone", async () => {
  const node = reconciledNode();
  leftByClient(node);
  node.journal.vfs.set(first, kernelEntry(first, "c1", IN_HOST.name));
  const { stop } = await node.follow();
  const { length } = node.done;
  await node.clock.pass(2 * INTERVAL_MS);
  assert.equal(node.done.length, length);
  await stop();
});

test("a VF that a Request takes while its PF is queried is the Request's", async () => {
  const node = reconciledNode();
  leftByClient(node);
  const { stop } = await node.follow();
  node.vf().settings = { mac: FREE.mac, vlan: 9 };
  const reported = Promise.withResolvers<void>();
  node.vf().reporting = reported.promise;
  await node.clock.pass(INTERVAL_MS);
  node.give(first, "c2");
  reported.resolve();
  await settled();
  assert.deepEqual([node.vf().settings.vlan, node.stateOf()], [9, "ready"]);
  await stop();
});

test("a VF that another client has got, or that has another driver, is not undone for a late write", async () => {
  const node = reconciledNode();
  leftByClient(node);
  const { stop } = await node.follow();
  node.give(first, "c2");
  node.vf().settings = { mac: FREE.mac, vlan: 9 };
  await node.clock.pass(INTERVAL_MS);
  assert.equal(node.vf().settings.vlan, 9);
  node.inventory.setState("c2", "reclaiming");
  node.inventory.release("c2");
  node.inventory.setDriver(first, "vfio-pci");
  node.vf().driver = "vfio-pci";
  await node.clock.pass(INTERVAL_MS);
  assert.equal(node.vf().settings.vlan, 9);
  await stop();
});

test("a late write that cannot be undone keeps the VF from clients until it can", async () => {
  const node = reconciledNode();
  leftByClient(node);
  const { stop } = await node.follow();
  node.vf().settings = { mac: FREE.mac, vlan: 5 };
  node.failing.add("vlan");
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.stateOf(), node.codes()[0]], ["quarantined", "drifted"]);
  // What changes of it meanwhile does not make it unknown.
  node.inventory.raise(first, { code: "pf-without-carrier", error: "no carrier" });
  assert.ok(!node.codes().includes("unsettled"));
  node.inventory.clear(first, "pf-without-carrier");
  await node.clock.pass(20 * INTERVAL_MS);
  assert.equal(node.stateOf(), "quarantined");
  node.failing.clear();
  await node.clock.pass(6 * INTERVAL_MS); // and no longer wait there is
  assert.deepEqual([node.stateOf(), node.vf().settings], ["idle", FREE]);
  await stop();
});

test("a VF that comes back from an unknown namespace is made as udev makes VFs", async () => {
  const node = reconciledNode();
  const { link } = node.vf();
  node.vf().link = undefined;
  const { stop } = await node.follow();
  assert.deepEqual([node.stateOf(), node.codes()], ["quarantined", ["netdev-missing"]]);
  node.vf().link = link && { ...link, index: 17, ...CLIENTS };
  node.vf().settings = { mac: FREE.mac, vlan: 5 };
  node.say({ devpath: node.of(first) });
  await node.clock.pass(20);
  const { address: _kept, ...made } = linkOf(node);
  assert.deepEqual(made, { name: "enp1s0f0v0", mtu: 1500, up: false });
  assert.deepEqual([node.vf().settings, node.codes(), node.counts.sockets], [FREE, [], 0]);
  await stop();
});

test("a VF without a network device whose driver is another one by now loses its client's VLAN and address, and is not free before", async () => {
  const node = reconciledNode();
  node.vf().link = undefined;
  const { stop } = await node.follow();
  node.vf().settings = { mac: CLIENTS.address, vlan: 5 };
  node.vf().driver = "vfio-pci";
  node.inventory.setDriver(first, "vfio-pci");
  node.failing.add("vlan");
  await node.clock.pass(INTERVAL_MS);
  assert.equal(node.stateOf(), "quarantined");
  node.failing.clear();
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.vf().settings, node.stateOf()], [FREE, "idle"]);
  await stop();
});

test("a VF that an operator has unbound is bound again, and then becomes what it was", async () => {
  const node = reconciledNode();
  leftByClient(node);
  const { link } = node.vf();
  node.vf().link = undefined;
  node.vf().driver = undefined;
  node.inventory.setDriver(first, undefined);
  const { stop } = await node.follow();
  assert.ok(node.done.includes(`bind ${first} kernel`));
  node.vf().link = link;
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([linkOf(node), node.stateOf(), node.journal.vfs.size], [IN_HOST, "idle", 0]);
  await stop();
});

test("a repair that has never failed does not wait for the time of another one that did", async () => {
  const node = reconciledNode();
  leftByClient(node);
  node.failing.add("vlan");
  const { stop } = await node.follow();
  for (let passes = 0; passes < 8; passes += 1) await node.clock.pass(INTERVAL_MS);
  const failed = conditionOf(node.inventory.get(first) ?? assert.fail("it is there"), "repair-failed");
  assert.ok((failed?.againMs ?? 0) - node.clock.monotonicMs() > INTERVAL_MS, "restoring it waits for long by now");
  node.vf().link = undefined;
  node.vf().driver = undefined;
  node.inventory.setDriver(first, undefined);
  await node.clock.pass(INTERVAL_MS);
  assert.ok(node.done.includes(`bind ${first} kernel`), node.done.join());
  await stop();
});

test("an entry whose connection cannot be continued contradicts the node, and no client gets its VF", async () => {
  const node = reconciledNode();
  node.journal.vfs.set(first, kernelEntry(first)); // of a token that no resource of this node gave out
  node.journal.left.set("c1", node.connection("c1"));
  node.vf().link = undefined;
  assert.deepEqual(await node.reconciler.start(), []);
  assert.deepEqual([node.stateOf(), node.codes()], ["quarantined", ["contradicts-journal"]]);
  assert.equal(node.log.of("vf-contradicts-journal").length, 1);
});

test("an entry that comes late and contradicts the node leaves no instant in which a client could get its VF", async () => {
  const node = reconciledNode();
  const seen: (string | undefined)[] = [];
  node.inventory.onChange(({ vfs }) => vfs.has(first) && seen.push(node.stateOf()));
  const { stop } = await node.follow();
  node.lose();
  node.journal.vfs.set(first, vfioEntry(first));
  node.failing.add("revoke");
  seen.length = 0;
  node.resync();
  await node.clock.pass(INTERVAL_MS);
  // Once: that it has come, before anything is known of it.
  assert.deepEqual(
    seen.filter((state) => state !== "quarantined"),
    ["idle"],
  );
  assert.ok(node.codes().includes("unexplained-grant"));
  await stop();
});

test("the end of a connection whose namespace has ended leaves no mark on a VF that was given back, or that the next one has", async () => {
  const node = reconciledNode();
  const { stop } = await node.follow();
  node.give(first, "c1");
  node.inventory.raise(first, { code: "pending-netns", ending: "not" });
  const ended = Promise.withResolvers<void>();
  node.running.ending = ended.promise;
  await node.clock.pass(INTERVAL_MS);
  const record = node.inventory.get(first) ?? assert.fail();
  assert.deepEqual(conditionOf(record, "pending-netns"), { code: "pending-netns", ending: "now" });
  node.inventory.clear(first, "pending-netns");
  node.inventory.setState("c1", "reclaiming");
  node.inventory.release("c1");
  ended.resolve();
  await settled();
  assert.deepEqual(node.codes(), []);
  await stop();
});

test("an entry of the journal whose VF is not there yet is reported once, at the start", async () => {
  const node = reconciledNode();
  node.lose();
  node.journal.vfs.set(first, kernelEntry(first));
  Object.assign(node.vf(), { isPresent: true, link: undefined });
  const { stop } = await node.follow();
  await node.clock.pass(3 * INTERVAL_MS);
  assert.deepEqual(node.log.of("vf-of-journal-absent"), [{ vf: first, connection: "c1" }]);
  await stop();
});

/** Its client has left it; a process that died was to clean it. */
function leftToBeCleaned(node: Node) {
  leftByClient(node);
  const entry = kernelEntry(first);
  const state = { ...entry.state, kept: { boot: BOOT, settings: { group: "u32 7" } } };
  node.journal.vfs.set(first, { ...entry, state, isLeft: true });
}

test("a VF that the previous instance was not done with cleaning gets its new device at once, and that is no repair", async () => {
  const node = reconciledNode();
  leftToBeCleaned(node);
  await node.reconciler.start();
  assert.deepEqual([node.stateOf(), node.codes(), node.done], ["reclaiming", ["being-cleaned"], ["strays of "]]);
  const stop = node.reconciler.follow(node.running);
  await settled();
  assert.ok(node.done.includes(`renew ${first}`));
  assert.deepEqual([node.stateOf(), node.codes(), [...node.journal.vfs.keys()]], ["idle", ["recently-restored"], []]);
  assert.deepEqual([node.log.of("vf-repaired"), node.log.of("vf-cleaned").length], [[], 1]);
  assert.match(await node.metrics.text(), /^nsm_sriov_vf_cleaning_seconds_count\{outcome="ok"\} 1/m);
  await stop();
});

for (const has of ["another VF", "no VF, but another mechanism"] as const) {
  test(`a cleaning that ends when its client is back and has ${has} leaves the connection in the journal`, async () => {
    const node = reconciledNode();
    const { stop } = await node.follow();
    node.give(first, "c1");
    leftToBeCleaned(node);
    const made = Promise.withResolvers<void>();
    node.vf().making = made.promise;
    node.inventory.setState("c1", "reclaiming");
    node.inventory.raise(first, { code: "being-cleaned" });
    node.inventory.release("c1");
    await settled();
    if (has === "another VF") node.give(second, "c1");
    made.resolve();
    await settled();
    assert.deepEqual([node.stateOf(), [...node.journal.vfs.keys()]], ["idle", []]);
    assert.ok(!node.done.includes("drop c1"), node.done.join());
    await stop();
  });
}

test("a VF that is restored drops no connection that has another VF, nor one that this process has written", async () => {
  for (const isHeld of [true, false]) {
    const node = reconciledNode();
    const { stop } = await node.follow();
    leftByClient(node);
    if (isHeld) node.give(second, "c1");
    if (isHeld) node.journal.left.set("c1", node.connection("c1"));
    await node.clock.pass(INTERVAL_MS);
    assert.deepEqual([node.stateOf(), node.journal.vfs.size, node.done.includes("drop c1")], ["idle", 0, false]);
    await stop();
  }
});

test("a VF whose new device does not take what the host had set serves all the same, and says what it is", async () => {
  const node = reconciledNode();
  leftToBeCleaned(node);
  node.remaining.push({ setting: "group", before: "u32 7", after: undefined, error: undefined });
  const { stop } = await node.follow();
  assert.equal(node.stateOf(), "idle");
  assert.deepEqual(node.codes().toSorted(), ["not-as-before", "recently-restored"]);
  assert.deepEqual(node.log.of("vf-not-as-before"), [{ vf: first, left: "group is unset where it was u32 7" }]);
  node.inventory.take({ connectionId: "c2", tokenId: node.tokenOf(first), use: "kernel" });
  await stop();
});

/** The host had called it otherwise, and given it another MTU, than a new device has. */
function leftAsHostHadSet(node: Node) {
  leftToBeCleaned(node);
  const entry = kernelEntry(first);
  const original = { ...entry.state.original, name: "uplink0", mtu: 9000 };
  node.journal.vfs.set(first, { ...entry, state: { ...entry.state, original }, isLeft: true });
}

test("a VF whose new device takes neither the host's name nor its MTU is clean: it serves, says so, and is cleaned once", async () => {
  const node = reconciledNode();
  leftAsHostHadSet(node);
  for (const what of ["name", "mtu"] as const) node.failing.add(what);
  const { stop } = await node.follow();
  await node.clock.pass(2 * INTERVAL_MS);
  assert.deepEqual([node.stateOf(), [...node.journal.vfs.keys()]], ["idle", []]);
  assert.deepEqual(node.codes().toSorted(), ["not-as-before", "recently-restored"]);
  const left = "name was refused: no such name; mtu was refused: no such mtu";
  assert.deepEqual(node.log.of("vf-not-as-before"), [{ vf: first, left }]);
  assert.equal(node.done.filter((what) => what === `renew ${first}`).length, 1);
  await stop();
});

test("a VF whose new device has kept its name on the way is not undone for that", async () => {
  const node = reconciledNode();
  leftAsHostHadSet(node);
  node.failing.add("name");
  const { stop } = await node.follow();
  const { link } = node.vf();
  node.vf().link = link && { ...link, name: kernelEntry(first).state.temporaryName };
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.stateOf(), node.codes().toSorted()], ["idle", ["not-as-before", "recently-restored"]]);
  await stop();
});

test("a VF whose PF keeps its client's VLAN is not clean, whatever its new device takes", async () => {
  const node = reconciledNode();
  leftAsHostHadSet(node);
  for (const what of ["mtu", "vlan"] as const) node.failing.add(what);
  const { stop } = await node.follow();
  assert.deepEqual([node.stateOf(), [...node.journal.vfs.keys()]], ["quarantined", [first]]);
  assert.match(String(node.log.of("vf-not-repaired")[0]?.["error"]), /vf vlan/);
  await stop();
});

test("a VF from an unknown namespace whose new device does not take its name is clean, too", async () => {
  const node = reconciledNode();
  const { link } = node.vf();
  node.vf().link = undefined;
  const { stop } = await node.follow();
  node.vf().link = link && { ...link, index: 17, ...CLIENTS };
  node.vf().madeName = "eth0";
  node.failing.add("name");
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.stateOf(), node.codes()], ["idle", ["not-as-before"]]);
  await stop();
});

test("a VF whose driver cannot make it a new device is given to no client until it can", async () => {
  const node = reconciledNode();
  leftToBeCleaned(node);
  node.failing.add("bind");
  const { stop } = await node.follow();
  assert.deepEqual([node.stateOf(), [...node.journal.vfs.keys()]], ["quarantined", [first]]);
  assert.deepEqual(node.codes().toSorted(), ["drifted", "repair-failed"]);
  node.failing.clear();
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.stateOf(), node.codes()], ["idle", ["recently-restored"]]);
  await stop();
});

test("a stop waits two seconds for a driver that makes a new device, and leaves the rest to the next start", async () => {
  const node = reconciledNode();
  leftToBeCleaned(node);
  node.vf().making = new Promise(() => {});
  const { stop } = await node.follow();
  let isStopped = false;
  const stopping = stop().then(() => {
    isStopped = true;
  });
  await node.clock.pass(1_999);
  assert.equal(isStopped, false);
  await node.clock.pass(1);
  await stopping;
  assert.deepEqual([[...node.journal.vfs.keys()], node.clock.timerCount], [[first], 0]);
  assert.match(await node.metrics.text(), /^nsm_sriov_vf_cleaning_seconds_count\{outcome="failed"\} 1/m);
});

/** VFs whose repair waits for its driver when the node stops. */
const waiting = {
  "device of a VF from an unknown namespace": async () => {
    const node = reconciledNode();
    const { link } = node.vf();
    node.vf().link = undefined;
    const { stop } = await node.follow();
    Object.assign(node.vf(), { link, making: new Promise(() => {}) });
    await node.clock.pass(INTERVAL_MS);
    assert.ok(node.done.includes(`renew ${first}`));
    return { node, stop };
  },
  "turn of a VF that is to be bound again": async () => {
    const node = reconciledNode();
    leftByClient(node);
    Object.assign(node.vf(), { link: undefined, driver: undefined, turn: new Promise(() => {}) });
    node.inventory.setDriver(first, undefined);
    return { node, ...(await node.follow()) };
  },
};

for (const [what, start] of Object.entries(waiting)) {
  test(`a stop waits two seconds, too, for the ${what}`, async () => {
    const { node, stop } = await start();
    let isStopped = false;
    const stopping = stop().then(() => {
      isStopped = true;
    });
    await node.clock.pass(1_999);
    assert.equal(isStopped, false);
    await node.clock.pass(1);
    assert.equal(isStopped, true);
    await stopping;
    assert.equal(node.clock.timerCount, 0);
  });
}
