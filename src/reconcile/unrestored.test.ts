// VFs that are not as the host had them before their first client: until they are, beyond other clients and restarts.
import assert from "node:assert/strict";
import { test } from "node:test";
import { BOOT, first, INTERVAL_MS, kernelEntry, reconciledNode } from "../../test/scenes/reconciled-node.ts";
import type { KernelVfEntry, StoredEntry } from "../mechanisms/journal-entries.ts";
import { settled } from "../nsm/testing/fakes.ts";

const GROUP = { setting: "group", before: "u32 7", after: undefined, error: undefined };

function entryOf(boot = BOOT): KernelVfEntry {
  const entry = kernelEntry(first);
  return { ...entry, isLeft: true, state: { ...entry.state, kept: { boot, settings: { group: "u32 7" } } } };
}

/** What a previous instance has left on disk of a VF whose new device did not take all. */
async function diskOf(): Promise<Map<string, StoredEntry>> {
  const disk = new Map<string, StoredEntry>();
  const node = reconciledNode(2, disk);
  node.journal.vfs.set(first, entryOf());
  node.remaining.push(GROUP);
  const { stop } = await node.follow();
  assert.deepEqual([node.stateOf(), node.journal.vfs.size], ["idle", 0]);
  await stop();
  return disk;
}

test("how the host had a VF is kept when its new device does not take it, and not when it does", async () => {
  const disk = await diskOf();
  const { connectionId, state } = entryOf();
  assert.deepEqual(Object.fromEntries(disk), {
    [`unrestored ${first}`]: {
      address: first,
      before: { connectionId, state },
      isNewNeeded: false,
      isNameTaken: false,
      boot: BOOT,
    },
  });
  const node = reconciledNode(2, disk);
  node.journal.vfs.set(first, entryOf());
  const { stop } = await node.follow();
  assert.deepEqual([node.codes(), disk.size], [["recently-restored"], 0]);
  await stop();
});

test("after a restart no client gets such a VF before it was tried again, and what it does not take is kept on", async () => {
  const disk = await diskOf();
  const kept = Object.fromEntries(disk);
  const node = reconciledNode(2, disk);
  node.remaining.push(GROUP);
  await node.reconciler.start();
  assert.deepEqual([node.stateOf(), node.codes(), node.done], ["quarantined", ["drifted"], ["strays of "]]);
  const stop = node.reconciler.follow(node.running);
  await settled();
  assert.deepEqual([node.stateOf(), node.codes(), Object.fromEntries(disk)], ["idle", ["not-as-before"], kept]);
  await node.clock.pass(2 * INTERVAL_MS);
  assert.equal(node.log.of("vf-repaired").length, 1, "once");
  await stop();
});

test("after a restart such a VF that takes all now is as the host had it", async () => {
  const disk = await diskOf();
  const node = reconciledNode(2, disk);
  const { link } = node.vf();
  node.vf().link = link && { ...link, name: "eth0", mtu: 9000 };
  const { stop } = await node.follow();
  assert.deepEqual([node.stateOf(), node.codes(), disk.size], ["idle", [], 0]);
  assert.deepEqual([node.vf().link?.name, node.vf().link?.mtu], ["enp1s0f0v0", 1500]);
  await stop();
});

test("such a VF that comes late leaves no instant in which a client could get it", async () => {
  const node = reconciledNode(2, await diskOf());
  node.lose();
  const { stop } = await node.follow();
  const seen: (string | undefined)[] = [];
  node.inventory.onChange(({ vfs }) => vfs.has(first) && seen.push(node.stateOf()));
  const answer = Promise.withResolvers<void>();
  node.vf().answering = answer.promise;
  node.resync();
  assert.equal(node.stateOf(), "quarantined");
  answer.resolve();
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.stateOf(), node.codes()], ["idle", []]);
  await stop();
});

test("such a VF that a connection has, or another driver, is left to that", async () => {
  for (const has of ["a connection", "another driver"] as const) {
    const disk = await diskOf();
    const node = reconciledNode(2, disk);
    if (has === "a connection") node.give(first, "c2");
    else {
      node.inventory.setDriver(first, "vfio-pci");
      Object.assign(node.vf(), { driver: "vfio-pci", link: undefined });
    }
    const { stop } = await node.follow();
    assert.deepEqual([node.codes(), disk.size], [[], 1], has);
    await stop();
  }
});

/** What a previous instance has left of it, as it is on disk. */
function diskWith({ connectionId, state }: KernelVfEntry) {
  return new Map([[`unrestored ${first}`, { address: first, before: { connectionId, state } }]]);
}

test("what was kept in another boot of the machine is forgotten, and the VF left as it is", async () => {
  const disk = diskWith(entryOf("another boot"));
  const node = reconciledNode(2, disk);
  const { stop } = await node.follow();
  assert.deepEqual([node.stateOf(), node.codes(), disk.size], ["idle", [], 0]);
  assert.deepEqual(node.done, ["strays of "]);
  await stop();
});

const { connectionId, state: withoutSettings } = kernelEntry(first);
const before = { connectionId, state: withoutSettings };
for (const [what, kept, codes] of [
  ["without settings in this boot is tried again", { before, boot: BOOT }, ["drifted"]],
  ["of a VF that was away, in this boot, is tried again", { isNewNeeded: true, boot: BOOT }, ["netdev-missing"]],
  ["without settings in another boot is forgotten", { before, boot: "another boot" }, []],
  ["of a VF that was away, in another boot, is forgotten", { isNewNeeded: true, boot: "another boot" }, []],
  ["in a boot that is not known is forgotten", { before }, []],
] as const) {
  test(`what was kept ${what}`, async () => {
    const disk = new Map([[`unrestored ${first}`, { address: first, ...kept }]]);
    const node = reconciledNode(2, disk);
    await node.reconciler.start();
    assert.deepEqual([node.codes(), disk.size], [codes, codes.length]);
  });
}

test("what the journal has of a VF that is out decides before what it has of an earlier client", async () => {
  const node = reconciledNode(2, diskWith(entryOf()));
  node.journal.vfs.set(first, kernelEntry(first));
  await node.reconciler.start();
  assert.deepEqual(node.codes(), ["contradicts-journal"]);
});

test("what was kept of a VF that is gone for good is forgotten", async () => {
  const disk = await diskOf();
  const node = reconciledNode(2, disk);
  node.lose();
  node.vf().isPresent = false;
  const { stop } = await node.follow();
  await node.clock.pass(11 * INTERVAL_MS);
  assert.equal(disk.size, 1, "it may have been reset");
  await node.clock.pass(3 * INTERVAL_MS);
  assert.equal(disk.size, 0);
  await stop();
});

for (const what of ["was away", "a client has left"] as const) {
  test(`how the host had a VF that ${what} is kept while another driver has it, and it is made so when that gives it up`, async () => {
    const { connectionId, state } = entryOf();
    const kept = { address: first, before: { connectionId, state }, isNewNeeded: what === "was away", boot: BOOT };
    const disk = new Map<string, StoredEntry>([[`unrestored ${first}`, kept]]);
    const node = reconciledNode(2, disk);
    if (what === "a client has left") node.journal.vfs.set(first, entryOf());
    const { link } = node.vf();
    node.inventory.setDriver(first, "vfio-pci");
    Object.assign(node.vf(), { driver: "vfio-pci", link: undefined });
    const { stop } = await node.follow();
    await node.clock.pass(INTERVAL_MS);
    const after = { ...kept, isNewNeeded: false };
    assert.deepEqual([Object.fromEntries(disk), node.journal.vfs.size], [{ [`unrestored ${first}`]: after }, 0]);
    assert.ok(!node.codes().includes("netdev-missing"));
    Object.assign(node.vf(), { driver: "igbvf", link: link && { ...link, name: "eth0", mtu: 9000 } });
    node.resync();
    await node.clock.pass(INTERVAL_MS);
    assert.deepEqual([node.stateOf(), node.vf().link?.name, node.vf().link?.mtu], ["idle", "enp1s0f0v0", 1500]);
    assert.equal(disk.size, 0);
    await stop();
  });
}

test("where another driver has a VF of which nothing is known, nothing is kept", async () => {
  const disk = new Map<string, StoredEntry>([
    [`unrestored ${first}`, { address: first, isNewNeeded: true, boot: BOOT }],
  ]);
  const node = reconciledNode(2, disk);
  node.journal.vfs.set(first, entryOf());
  node.inventory.setDriver(first, "vfio-pci");
  Object.assign(node.vf(), { driver: "vfio-pci", link: undefined });
  const { stop } = await node.follow();
  assert.deepEqual([disk.size, node.journal.vfs.size, node.stateOf()], [0, 0, "idle"]);
  await stop();
});

/** Its PF has lost it, and makes it again. */
async function replaced(node: Node, { isGoneBetween }: { readonly isGoneBetween: boolean }) {
  node.vf().isPresent = !isGoneBetween;
  node.lose();
  await settled();
  node.vf().isPresent = true;
  node.resync();
  await node.clock.pass(INTERVAL_MS);
}

for (const [what, isGoneBetween, kept] of [
  ["was destroyed and made again is forgotten: it is another one", true, 0],
  ["the node has only lost sight of stays", false, 1],
] as const) {
  test(`what was kept of a VF that ${what}`, async () => {
    const disk = await diskOf();
    const node = reconciledNode(2, disk);
    node.remaining.push(GROUP);
    const { stop } = await node.follow();
    node.done.length = 0;
    await replaced(node, { isGoneBetween });
    assert.deepEqual([disk.size, node.codes()], [kept, isGoneBetween ? [] : ["not-as-before"]]);
    assert.equal(node.done.length === 0, isGoneBetween);
    await stop();
  });
}

test("what was kept of a VF that is back when its loss is looked into stays", async () => {
  const disk = await diskOf();
  const node = reconciledNode(2, disk);
  node.remaining.push(GROUP);
  const { stop } = await node.follow();
  node.vf().isPresent = false;
  node.lose();
  node.resync();
  await settled();
  assert.equal(disk.size, 1);
  await stop();
});

test("a VF that was away is cleaned though the node has lost it meanwhile", async () => {
  const disk = new Map<string, StoredEntry>();
  const node = reconciledNode(2, disk);
  node.vf().link = undefined;
  const { stop } = await node.follow();
  await replaced(node, { isGoneBetween: true });
  assert.deepEqual([node.stateOf(), node.codes(), disk.size], ["quarantined", ["netdev-missing"], 1]);
  await stop();
});

test("what was kept of a VF that kubelet has given out and that is destroyed is forgotten", async () => {
  const disk = await diskOf();
  const node = reconciledNode(2, disk);
  node.remaining.push(GROUP);
  const { stop } = await node.follow();
  node.inventory.reserveToken(node.tokenOf(first));
  await replaced(node, { isGoneBetween: true });
  assert.equal(disk.size, 0);
  await stop();
});

type Node = ReturnType<typeof reconciledNode>;

/** Its network device comes back from a namespace that no journal names, as a client there has left it. */
function comeBack(node: Node, link: ReturnType<Node["vf"]>["link"]) {
  node.vf().link = link && { ...link, index: 17, name: "nsm-1", mtu: 1400, up: true };
  node.vf().settings = { mac: "00:00:00:00:00:00", vlan: 5 };
}

test("a VF whose device is not in the host is in the journal until it is clean, and a start finds it there", async () => {
  const disk = new Map<string, StoredEntry>();
  const missing = reconciledNode(2, disk);
  const { link } = missing.vf();
  missing.vf().link = undefined;
  const { stop } = await missing.follow();
  await stop();
  assert.deepEqual(
    [missing.codes(), Object.fromEntries(disk)],
    [["netdev-missing"], { [`unrestored ${first}`]: { address: first, isNewNeeded: true, boot: BOOT } }],
  );
  const node = reconciledNode(2, disk);
  comeBack(node, link); // while no forwarder ran
  await node.reconciler.start();
  assert.deepEqual([node.stateOf(), node.codes(), node.done], ["quarantined", ["netdev-missing"], ["strays of "]]);
  const end = node.reconciler.follow(node.running);
  await settled();
  assert.deepEqual([node.stateOf(), node.vf().settings.vlan, disk.size], ["idle", 0, 0]);
  assert.deepEqual(node.log.of("vf-repaired"), [{ vf: first, repair: "clean" }]);
  await end();
});

test("a process that dies while it cleans such a VF leaves the rest to the next start", async () => {
  for (const diesWhile of ["its driver has let go of it", "its driver has it still"] as const) {
    const disk = new Map<string, StoredEntry>();
    const dying = reconciledNode(2, disk);
    const { link } = dying.vf();
    dying.vf().link = undefined;
    await dying.follow();
    comeBack(dying, link);
    dying.vf().binding = new Promise(() => {});
    await dying.clock.pass(INTERVAL_MS);
    assert.ok(dying.done.includes(`renew ${first}`));

    const node = reconciledNode(2, disk);
    node.vf().settings = dying.vf().settings;
    if (diesWhile === "its driver has let go of it") {
      Object.assign(node.vf(), { driver: undefined, link: undefined });
      node.inventory.setDriver(first, undefined);
    }
    const { stop } = await node.follow();
    assert.deepEqual([node.stateOf(), node.vf().settings.vlan, disk.size], ["idle", 0, 0], diesWhile);
    await stop();
  }
});

test("how the host had it is known of a VF that is away as well, and it is made so when it comes back", async () => {
  const entry = entryOf();
  const original = { ...entry.state.original, name: "uplink0" };
  const node = reconciledNode(2, diskWith({ ...entry, state: { ...entry.state, original } }));
  const { link } = node.vf();
  node.vf().link = undefined;
  const { stop } = await node.follow();
  assert.deepEqual(node.codes(), ["netdev-missing"]);
  comeBack(node, link);
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.stateOf(), node.codes(), node.vf().link?.name], ["idle", [], "uplink0"]);
  assert.ok(node.done.includes(`renew ${first}`), "its client was somewhere");
  await stop();
});

for (const when of ["at the start", "late"] as const) {
  test(`a VF that was away and comes back while no forwarder runs is given to no client as it is, where it is there ${when}`, async () => {
    const disk = diskWith(entryOf());
    const missing = reconciledNode(2, disk);
    const { link } = missing.vf();
    missing.vf().link = undefined;
    const { stop } = await missing.follow();
    await stop();
    const node = reconciledNode(2, disk);
    comeBack(node, link);
    if (when === "late") node.lose();
    await node.reconciler.start();
    const end = node.reconciler.follow(node.running);
    if (when === "late") node.resync();
    assert.deepEqual([node.stateOf(), node.codes()], ["quarantined", ["netdev-missing"]]);
    await node.clock.pass(INTERVAL_MS);
    assert.deepEqual([node.stateOf(), node.codes(), disk.size], ["idle", [], 0]);
    assert.ok(node.done.includes(`renew ${first}`));
    await end();
  });
}

test("a VF that has had another device since it was away needs none after a restart, though it does not take all", async () => {
  const disk = diskWith(entryOf());
  const missing = reconciledNode(2, disk);
  const { link } = missing.vf();
  missing.vf().link = undefined;
  missing.remaining.push(GROUP);
  const { stop } = await missing.follow();
  comeBack(missing, link);
  await missing.clock.pass(INTERVAL_MS);
  assert.deepEqual([missing.codes(), disk.size], [["not-as-before"], 1]);
  await stop();
  const node = reconciledNode(2, disk);
  const end = await node.follow();
  assert.deepEqual([node.codes(), node.done.includes(`renew ${first}`), disk.size], [[], false, 0]);
  await end.stop();
});

test("a process that dies while it repairs what a late write has left of a VF leaves the rest to the next start", async () => {
  const disk = new Map<string, StoredEntry>();
  const dying = reconciledNode(2, disk);
  dying.journal.vfs.set(first, entryOf());
  await dying.follow();
  assert.deepEqual([dying.codes(), disk.size], [["recently-restored"], 0]);
  dying.vf().settings = { mac: "00:00:00:00:00:00", vlan: 5 };
  let isReported = false;
  dying.inventory.onChange(() => {
    if (!dying.codes().includes("drifted") || isReported) return;
    isReported = true;
    dying.vf().reporting = new Promise(() => {});
  });
  await dying.clock.pass(INTERVAL_MS);
  assert.equal(isReported, true);

  const node = reconciledNode(2, disk);
  const { link } = node.vf();
  node.vf().link = link && { ...link, name: "nsm-0102030405" };
  node.vf().settings = dying.vf().settings;
  const { stop } = await node.follow();
  assert.deepEqual([node.stateOf(), node.codes(), disk.size], ["idle", [], 0]);
  assert.deepEqual([node.vf().link?.name, node.vf().settings.vlan], ["enp1s0f0v0", 0]);
  await stop();
});

test("such a VF is touched when the journal has it, or could not be written", async () => {
  const node = reconciledNode();
  const { link } = node.vf();
  node.vf().link = undefined;
  const { stop } = await node.follow();
  const written = Promise.withResolvers<void>();
  Object.assign(node.journal.unrestored, { keep: () => written.promise });
  comeBack(node, link);
  await node.clock.pass(INTERVAL_MS);
  assert.ok(!node.done.includes(`renew ${first}`));
  written.reject(new Error("the disk is full"));
  await settled();
  assert.deepEqual([node.stateOf(), node.codes()], ["idle", []]);
  await stop();
});

/** Of the VF that was there under the address, or of the one before. */
const withDevice = (entry: KernelVfEntry, instance: bigint): KernelVfEntry => ({
  ...entry,
  state: { ...entry.state, device: `${BOOT}/${instance}` },
});

test("a VF that was made again while a client had it, or was to be cleaned, is as the host has made it", async () => {
  const disk = new Map<string, StoredEntry>();
  const node = reconciledNode(2, disk);
  node.journal.vfs.set(first, withDevice(entryOf(), 0n));
  Object.assign(node.vf(), { madeName: "eth0", settings: { mac: "02:00:00:00:00:77", vlan: 100 } });
  const { link } = node.vf();
  node.vf().link = link && { ...link, name: "uplink0", mtu: 9000 };
  const { stop } = await node.follow();
  assert.deepEqual([node.stateOf(), node.codes(), node.journal.vfs.size, disk.size], ["idle", [], 0, 0]);
  assert.deepEqual([node.vf().link?.name, node.vf().link?.mtu, node.vf().settings.vlan], ["uplink0", 9000, 100]);
  assert.deepEqual(node.done, ["strays of ", `forget ${first}`]);
  await stop();
});

test("a VF that was made again since it was not all that the host had set is the next tenant's as it is", async () => {
  const disk = diskWith(withDevice(entryOf(), 0n));
  const node = reconciledNode(2, disk);
  const { link } = node.vf();
  node.vf().link = link && { ...link, name: "uplink0" };
  const { stop } = await node.follow();
  assert.deepEqual([node.stateOf(), node.codes(), disk.size, node.vf().link?.name], ["idle", [], 0, "uplink0"]);
  await stop();
});

test("a VF that was made again a moment after it was restored is not undone for that", async () => {
  const node = reconciledNode();
  node.journal.vfs.set(first, withDevice(entryOf(), 1n));
  const { stop } = await node.follow();
  assert.deepEqual(node.codes(), ["recently-restored"]);
  Object.assign(node.vf(), { instance: 2n, settings: { mac: "02:00:00:00:00:77", vlan: 100 } });
  await node.clock.pass(INTERVAL_MS);
  assert.deepEqual([node.vf().settings.vlan, node.codes(), node.stateOf()], [100, [], "idle"]);
  await stop();
});

test("a VF that is the same one is made as it was", async () => {
  const node = reconciledNode();
  node.journal.vfs.set(first, withDevice(entryOf(), 1n));
  node.vf().settings = { mac: "02:00:00:00:00:77", vlan: 100 };
  const { stop } = await node.follow();
  assert.equal(node.vf().settings.vlan, 0);
  await stop();
});

for (const [what, inventoryHears] of [
  ["at once", true],
  ["when the inventory knows it, too", false],
] as const) {
  test(`a VF that the host takes back from VFIO is as it was, ${what}`, async () => {
    const disk = new Map<string, StoredEntry>();
    const { state } = withDevice(entryOf(), 1n);
    disk.set(`unrestored ${first}`, { address: first, before: { state }, isNewNeeded: false, boot: BOOT });
    const node = reconciledNode(2, disk);
    const { link } = node.vf();
    Object.assign(node.vf(), { driver: "vfio-pci", link: undefined });
    node.inventory.setDriver(first, "vfio-pci");
    const { stop } = await node.follow();
    assert.deepEqual([node.stateOf(), node.codes(), disk.size], ["idle", [], 1]);
    Object.assign(node.vf(), { driver: "igbvf", link: link && { ...link, name: "eth0", mtu: 9000 } });
    node.say({ subsystem: "net", action: "add", devpath: node.of(first) });
    if (inventoryHears) node.inventory.setDriver(first, "igbvf");
    await node.clock.pass(20);
    node.inventory.setDriver(first, "igbvf");
    await node.clock.pass(inventoryHears ? 0 : 200);
    assert.deepEqual([node.vf().link?.name, node.vf().link?.mtu, disk.size], ["enp1s0f0v0", 1500, 0]);
    assert.deepEqual([node.stateOf(), node.codes()], ["idle", []]);
    await stop();
  });
}
