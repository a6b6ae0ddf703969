import assert from "node:assert/strict";
import { test } from "node:test";
import { Inventory } from "../inventory/index.ts";
import type { Link, NetlinkEvent, Netns, Rtnl, Uevent } from "../kernel/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { parsePciAddress } from "../pci/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { HostUseWatch } from "./host-use-watch.ts";
import type { HostUseWithholding } from "./withhold-host-use.ts";

const newAddress = (ifindex: number) =>
  ({ kind: "new-address", address: { ifindex, address: "10.0.0.9", prefixLength: 24 } }) as NetlinkEvent;
const [OURS, OTHER, PORT] = [7, 8, 9];

/** A host of one VF's link, which the first observation finds; one ends when `gate` says so. */
function setUp() {
  const node = { observations: 0, gate: Promise.resolve(), isPfOther: false, pfChanges: 0, sockets: 1, listeners: 0 };
  const links = new Map<number, object>();
  const hostUse = {
    links,
    isInDoubt: false,
    async observe() {
      node.observations += 1;
      await node.gate;
      links.set(OURS, { hasMaster: false });
      links.set(PORT, { hasMaster: true });
      return node.isPfOther;
    },
  };
  let emit: (event: NetlinkEvent) => void = () => assert.fail("no listener yet");
  const rtnl = {
    watch(_groups: unknown, listener: typeof emit) {
      emit = listener;
      node.listeners += 1;
      return () => {
        node.listeners -= 1;
      };
    },
    close() {
      node.sockets -= 1;
    },
  } as unknown as Rtnl;
  let announce: (event: Uevent) => void = () => assert.fail("no listener yet");
  const uevents = {
    subscribe(listener: typeof announce) {
      announce = listener;
      node.listeners += 1;
      return () => {
        node.listeners -= 1;
      };
    },
    close() {},
  };
  const [clock, log] = [new HandClock(), recordingLog()];
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const watch = new HostUseWatch({
    hostUse: hostUse as unknown as HostUseWithholding,
    inventory,
    host: { netns: {} as Netns, openRtnl: () => rtnl, uevents },
    onPfChange() {
      node.pfChanges += 1;
    },
    clock,
    log,
  });
  return {
    node,
    hostUse,
    inventory,
    clock,
    watch,
    log,
    emit: (event: NetlinkEvent) => emit(event),
    announce: (event: Partial<Uevent>) => announce(event as Uevent),
  };
}

test("HostUseWatch observes again after an event during an observation, also of a link that it has yet to find", async () => {
  const { node, clock, watch, emit } = setUp();
  const gate = Promise.withResolvers<void>();
  node.gate = gate.promise;
  const observing = watch.observe();
  await clock.pass(0);
  emit(newAddress(OURS));
  gate.resolve();
  await observing;
  await clock.pass(1_000);
  assert.equal(node.observations, 2);
  await watch.close();
});

test("HostUseWatch observes again without an event as long as the kernel was not sure, and no longer", async () => {
  const { node, hostUse, clock, watch } = setUp();
  hostUse.isInDoubt = true;
  await watch.observe();
  await clock.pass(1_000);
  const before = node.observations;
  assert.ok(before > 1);
  hostUse.isInDoubt = false;
  await clock.pass(1_000);
  assert.equal(node.observations, before + 1);
  await watch.close();
});

test("HostUseWatch observes again after an event of a VF's link, and of no other link", async () => {
  const { node, clock, watch, emit } = setUp();
  await watch.observe();
  emit(newAddress(OTHER));
  await clock.pass(1_000);
  assert.equal(node.observations, 1);
  emit(newAddress(OURS));
  await clock.pass(1_000);
  assert.equal(node.observations, 2);
  await watch.close();
});

test("HostUseWatch observes again when a VF comes back from a connection, and not when something else of a VF changes", async () => {
  const { node, inventory, clock, watch } = setUp();
  const pf = parsePciAddress("01:00.0");
  const common = { pf, iommuGroup: undefined, numaNode: undefined, kernelDriver: "igbvf", driver: "igbvf" };
  const addresses = [parsePciAddress("01:10.0"), parsePciAddress("01:10.2")];
  inventory.sync(
    pf,
    addresses.map((address, index) => ({ ...common, address, index, resources: ["d/x"] })),
  );
  const tokenId = inventory.devicesOf("d/x")[0]?.id ?? "";
  inventory.take({ connectionId: "c1", tokenId, use: "kernel" });
  await watch.observe();
  await clock.pass(1_000);
  const { observations } = node;
  inventory.raise(addresses[1] ?? pf, { code: "netdev-unseen" });
  inventory.raise(addresses[0] ?? pf, { code: "driver-binding" });
  await clock.pass(1_000);
  assert.equal(node.observations, observations);
  inventory.release("c1");
  await clock.pass(1_000);
  assert.equal(node.observations, observations + 1);
  await watch.close();
});

const link = (more: Partial<Link>) => ({ index: 20, name: "l", up: true, ...more }) as Link;
const route = (...ifindexes: readonly number[]) =>
  ({ kind: "default-route", route: { family: 4, gateway: undefined, ifindexes } }) as unknown as NetlinkEvent;
const goneAddress = (ifindex: number) => ({ ...newAddress(ifindex), kind: "gone-address" }) as NetlinkEvent;
const linkLocal = {
  kind: "new-address",
  address: { ifindex: OURS, address: "fe80::1", prefixLength: 64 },
} as NetlinkEvent;
const OF_VF = "/devices/pci0000:00/0000:01:10.0";

const heard: readonly (readonly [says: string, event: NetlinkEvent, concerns: boolean, during: boolean])[] = [
  ["events were lost", { kind: "lost" }, true, true],
  ["an address of a VF's link", newAddress(OURS), true, true],
  ["an address of another link", newAddress(OTHER), false, true],
  ["an address of a VF's link has gone", goneAddress(OURS), true, true],
  ["an address that every link has", linkLocal, false, false],
  ["an address that every link has has gone", { ...linkLocal, kind: "gone-address" } as NetlinkEvent, false, false],
  ["a default route over a VF's link and another one", route(OTHER, OURS), true, true],
  ["a default route over others", route(OTHER), false, true],
  ["a VF's link has got a master", { kind: "new-link", link: link({ index: OURS, master: 3 }) }, true, true],
  ["a VF's link has the master of before", { kind: "new-link", link: link({ index: PORT, master: 3 }) }, false, true],
  ["a VF's link has none as before", { kind: "new-link", link: link({ index: OURS }) }, false, true],
  ["a VF's link has left its master", { kind: "new-link", link: link({ index: PORT, master: 0 }) }, true, true],
  ["a VLAN on a VF's link", { kind: "new-link", link: link({ kind: "vlan", peerIndex: OURS }) }, true, true],
  ["a VLAN on another link", { kind: "new-link", link: link({ kind: "vlan", peerIndex: OTHER }) }, false, true],
  ["a VLAN on a VF's link has gone", { kind: "gone-link", link: link({ kind: "vlan", peerIndex: OURS }) }, true, true],
  ["a link on nothing has gone", { kind: "gone-link", link: link({ kind: "bridge" }) }, false, false],
];

test("HostUseWatch observes again for what can concern a VF, and while it observes for what may", async () => {
  for (const [says, event, concerns, during] of heard) {
    const { node, clock, watch, emit } = setUp();
    await watch.observe();
    emit(event);
    await clock.pass(1_000);
    assert.equal(node.observations, concerns ? 2 : 1, says);
    const gate = Promise.withResolvers<void>();
    node.gate = gate.promise;
    const observing = watch.observe();
    await clock.pass(0);
    const { observations } = node;
    emit(event);
    gate.resolve();
    await observing;
    await clock.pass(1_000);
    assert.equal(node.observations - observations, during ? 1 : 0, `${says}, during an observation`);
    await watch.close();
  }
});

test("HostUseWatch observes again when a VF's device or driver changes, or such events were lost, and for no others", async () => {
  const { node, inventory, clock, watch, announce } = setUp();
  const pf = parsePciAddress("01:00.0");
  const common = { pf, iommuGroup: undefined, numaNode: undefined, kernelDriver: "igbvf", driver: "igbvf" };
  inventory.sync(pf, [{ ...common, address: parsePciAddress("01:10.0"), index: 0, resources: ["d/x"] }]);
  await watch.observe();
  await clock.pass(1_000);
  const observationsAfter = async (event: Partial<Uevent>) => {
    const { observations } = node;
    announce(event);
    await clock.pass(1_000);
    return node.observations - observations;
  };
  assert.equal(await observationsAfter({ action: "lost", subsystem: "", devpath: "" }), 1);
  assert.equal(await observationsAfter({ action: "move", subsystem: "net", devpath: `${OF_VF}/net/eth0` }), 1);
  assert.equal(await observationsAfter({ action: "bind", subsystem: "pci", devpath: OF_VF }), 1);
  assert.equal(await observationsAfter({ action: "add", subsystem: "hwmon", devpath: `${OF_VF}/hwmon/hwmon1` }), 0);
  assert.equal(await observationsAfter({ action: "add", subsystem: "net", devpath: "/devices/virtual/net/veth1" }), 0);
  await watch.close();
});

test("HostUseWatch gives an observation that takes long a small part of the time, and many events one observation", async () => {
  const { node, clock, watch, emit } = setUp();
  const gate = Promise.withResolvers<void>();
  node.gate = gate.promise;
  const observing = watch.observe();
  await clock.pass(300);
  gate.resolve();
  await observing;
  for (let times = 0; times < 3; times += 1) emit(newAddress(OURS));
  assert.equal(clock.timerCount, 1);
  await clock.pass(5_999);
  assert.equal(node.observations, 1);
  await clock.pass(1);
  assert.equal(node.observations, 2);
  emit(newAddress(OURS));
  await clock.pass(50);
  assert.equal(node.observations, 3, "the last one was short");
  await watch.close();
});

test("HostUseWatch observes one time after the other, reports when a PF is used otherwise, and continues after a failure", async () => {
  const { node, clock, watch, log, emit } = setUp();
  const gate = Promise.withResolvers<void>();
  node.gate = gate.promise;
  const both = [watch.observe(), watch.observe()];
  await clock.pass(0);
  assert.equal(node.observations, 1);
  node.isPfOther = true;
  gate.resolve();
  await Promise.all(both);
  assert.deepEqual([node.observations, node.pfChanges], [2, 2]);
  node.isPfOther = false;
  node.gate = Promise.reject(new Error("no memory"));
  await watch.observe();
  assert.deepEqual(log.of("host-use-not-observed"), [{ error: "no memory" }]);
  node.gate = Promise.resolve();
  emit(newAddress(OTHER));
  await clock.pass(1_000);
  assert.equal(node.observations, 3, "what is another's is another's after a failure too");
  await watch.observe();
  assert.deepEqual([node.observations, node.pfChanges], [4, 2]);
  await watch.close();
});

test("HostUseWatch observes a VF that comes back while an observation is under way", async () => {
  const { node, inventory, clock, watch } = setUp();
  const pf = parsePciAddress("01:00.0");
  const common = { pf, iommuGroup: undefined, numaNode: undefined, kernelDriver: "igbvf", driver: "igbvf" };
  inventory.sync(pf, [{ ...common, address: parsePciAddress("01:10.0"), index: 0, resources: ["d/x"] }]);
  inventory.take({ connectionId: "c1", tokenId: inventory.devicesOf("d/x")[0]?.id ?? "", use: "kernel" });
  await clock.pass(1_000);
  const gate = Promise.withResolvers<void>();
  node.gate = gate.promise;
  const observing = watch.observe();
  await clock.pass(0);
  const { observations } = node;
  inventory.release("c1");
  gate.resolve();
  await observing;
  await clock.pass(1_000);
  assert.equal(node.observations, observations + 1);
  await watch.close();
});

test("HostUseWatch that is closed waits for its observation, and leaves neither timer, listener nor socket", async () => {
  for (const when of ["an event waits", "an observation is under way", "one is asked for behind it"] as const) {
    const { node, clock, watch, emit } = setUp();
    await watch.observe();
    const gate = Promise.withResolvers<void>();
    if (when === "an event waits") emit(newAddress(OURS));
    else {
      node.gate = gate.promise;
      void watch.observe();
      if (when === "one is asked for behind it") void watch.observe();
      await clock.pass(0);
    }
    const { observations } = node;
    let isClosed = false;
    const closing = watch.close().then(() => {
      isClosed = true;
    });
    await clock.pass(0);
    assert.deepEqual([isClosed, node.sockets], when === "an event waits" ? [true, 0] : [false, 1]);
    emit(newAddress(OURS));
    gate.resolve();
    await closing;
    assert.equal(clock.timerCount, 0, when);
    await clock.pass(10_000);
    assert.deepEqual(
      [node.observations, node.sockets, node.listeners, clock.timerCount],
      [observations, 0, 0, 0],
      when,
    );
  }
});
