import assert from "node:assert/strict";
import { test } from "node:test";
import { Inventory } from "../inventory/index.ts";
import type { NetlinkEvent, Netns, Rtnl } from "../kernel/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { parsePciAddress } from "../pci/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { HostUseWatch } from "./host-use-watch.ts";
import type { HostUseWithholding } from "./withhold-host-use.ts";

const newAddress = (ifindex: number) =>
  ({ kind: "new-address", address: { ifindex, address: "10.0.0.9", prefixLength: 24 } }) as NetlinkEvent;
const [OURS, OTHER] = [7, 8];

/** A host of one VF's link, which the first observation finds; one ends when `gate` says so. */
function setUp() {
  const node = { looks: 0, gate: Promise.resolve() };
  const links = new Map<number, object>();
  const hostUse = {
    links,
    async look() {
      node.looks += 1;
      await node.gate;
      links.set(OURS, { hasMaster: false });
      return false;
    },
  } as unknown as HostUseWithholding;
  let emit: (event: NetlinkEvent) => void = () => assert.fail("no listener yet");
  const rtnl = {
    watch(_groups: unknown, listener: typeof emit) {
      emit = listener;
      return () => {};
    },
    close() {},
  } as unknown as Rtnl;
  const uevents = { subscribe: () => () => {}, close() {} };
  const clock = new HandClock();
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const watch = new HostUseWatch({
    hostUse,
    inventory,
    host: { netns: {} as Netns, openRtnl: () => rtnl, uevents },
    onPfChange: () => assert.fail("no PF is used"),
    clock,
    log: recordingLog(),
  });
  return { node, inventory, clock, watch, emit: (event: NetlinkEvent) => emit(event) };
}

test("HostUseWatch observes again after an event during an observation, also of a link that it has yet to find", async () => {
  const { node, clock, watch, emit } = setUp();
  const gate = Promise.withResolvers<void>();
  node.gate = gate.promise;
  const looking = watch.look();
  await clock.pass(0);
  emit(newAddress(OURS));
  gate.resolve();
  await looking;
  await clock.pass(1_000);
  assert.equal(node.looks, 2);
  await watch.close();
});

test("HostUseWatch observes again after an event of a VF's link, and of no other link", async () => {
  const { node, clock, watch, emit } = setUp();
  await watch.look();
  emit(newAddress(OTHER));
  await clock.pass(1_000);
  assert.equal(node.looks, 1);
  emit(newAddress(OURS));
  await clock.pass(1_000);
  assert.equal(node.looks, 2);
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
  await watch.look();
  await clock.pass(1_000);
  const { looks } = node;
  inventory.raise(addresses[1] ?? pf, { code: "netdev-unseen" });
  inventory.raise(addresses[0] ?? pf, { code: "driver-binding" });
  await clock.pass(1_000);
  assert.equal(node.looks, looks);
  inventory.release("c1");
  await clock.pass(1_000);
  assert.equal(node.looks, looks + 1);
  await watch.close();
});
