// One VF from the moment it is taken until it is given back, while drivers are slow, fail, or answer when no caller waits any more.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { Inventory, type VfCondition } from "../inventory/index.ts";
import { NetdevError } from "../netdev/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { type DriverBinder, DriverError, type PciAddress, parsePciAddress } from "../pci/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { VfHolds } from "./held-vf.ts";
import type { VfEntry } from "./journal-entries.ts";

const PF = parsePciAddress("01:00.0");
const vfs = [0, 1, 2, 3].map((index) => parsePciAddress(`01:10.${index}`));
const [first, second, third, fourth] = vfs as [PciAddress, PciAddress, PciAddress, PciAddress];
const PATIENCE_MS = 2_000;
const PAUSE_MS = 30_000;

/** A node of four VFs; what `binding` has of one is what its driver does. */
function setUp({ refusals = [] as readonly string[] } = {}) {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf: PF, iommuGroup: undefined, numaNode: undefined, kernelDriver: "igbvf", driver: "igbvf" };
  const sync = (...addresses: readonly PciAddress[]) =>
    inventory.sync(
      PF,
      addresses.map((address) => ({ ...common, address, index: vfs.indexOf(address), resources: ["d/x"] })),
    );
  sync(...vfs);
  const [clock, log] = [new HandClock(), recordingLog()];
  const bound: PciAddress[] = [];
  const binding = new Map<PciAddress, () => Promise<void>>();
  const entries = new Map<PciAddress, VfEntry>();
  const judged: string[] = [];
  const used = new Map<PciAddress, string>();
  const sound = { isSound: async (_address: PciAddress): Promise<boolean> => true };
  const holds = new VfHolds({
    inventory,
    binder: {
      async bind({ address }: { readonly address: PciAddress }) {
        bound.push(address);
        await binding.get(address)?.();
      },
    } as unknown as DriverBinder,
    journal: { vfs: entries, forgetVf: (address) => void entries.delete(address) },
    hostUse: {
      async refuse(address) {
        const how = used.get(address);
        if (how === undefined) return;
        inventory.raise(address, { code: "host-use", how });
        throw new DriverError(address, { kind: "host-uses-it", how });
      },
    },
    survey: { judge: () => void judged.push("judge"), refusals },
    isLinkSound: (address) => sound.isSound(address),
    clock,
    log,
  });
  const tokenId = inventory.devicesOf("d/x").find(({ address }) => address === first)?.id ?? "";
  const take = (connectionId = "c1") => holds.take({ connectionId, tokenId, use: "kernel" });
  const slow = (address: PciAddress) => {
    const work = Promise.withResolvers<void>();
    binding.set(address, () => work.promise);
    return work;
  };
  const codes = (address: PciAddress) => inventory.get(address)?.conditions.map(({ code }) => code);
  return { inventory, clock, log, bound, binding, used, entries, judged, sound, holds, take, slow, codes, sync };
}

const { signal } = new AbortController();
const isThere = async () => {};
const refused = (address: PciAddress) => new DriverError(address, { kind: "no-netdev" });

test("bind() tries three VFs and no more, and leaves the others alone", async () => {
  const { bound, binding, take, codes, clock } = setUp();
  for (const address of vfs) binding.set(address, () => Promise.reject(refused(address)));
  const vf = take();
  await assert.rejects(vf.bind(signal, isThere), { fault: { kind: "no-netdev" } });
  assert.deepEqual([bound, codes(fourth)], [[first, second, third], []]);
  assert.deepEqual([codes(first), codes(second)], [["bind-failed"], ["bind-failed"]]);
  await clock.pass(PAUSE_MS);
  assert.deepEqual([codes(first), codes(second), clock.timerCount], [[], [], 0]);
});

test("bind() leaves two slow VFs and waits for the third, however long that takes", async () => {
  const { inventory, bound, take, slow, clock, log } = setUp();
  const work = [first, second, third].map(slow);
  const vf = take();
  const binding = vf.bind(signal, isThere);
  await clock.pass(10 * PATIENCE_MS);
  assert.deepEqual([bound, vf.address], [[first, second, third], third]);
  assert.deepEqual(
    vfs.map((address) => inventory.get(address)?.state),
    ["quarantined", "quarantined", "preparing", "idle"],
  );
  for (const { resolve } of work) resolve();
  await binding;
  await settled();
  assert.deepEqual(
    vfs.map((address) => inventory.get(address)?.state),
    ["idle", "idle", "preparing", "idle"],
  );
  assert.deepEqual(
    log.of("vf-restored").map(({ vf: which }) => which),
    [first, second],
  );
  assert.equal(clock.timerCount, 0);
});

test("bind() of a driver that is ready in time leaves no timer", async () => {
  const { take, clock } = setUp();
  await take().bind(signal, isThere);
  assert.equal(clock.timerCount, 0);
});

test("bind() for a caller who has gone leaves its VF to no other one", async () => {
  const { inventory, bound, take, slow, clock } = setUp();
  const work = slow(first);
  const caller = new AbortController();
  const vf = take();
  const binding = vf.bind(caller.signal, isThere);
  await settled();
  caller.abort(new Error("the caller has gone"));
  await clock.pass(2 * PATIENCE_MS);
  work.reject(caller.signal.reason);
  await assert.rejects(binding, /the caller has gone/);
  assert.deepEqual([bound, inventory.get(first)?.state], [[first], "preparing"]);
});

test("bind() does not leave a slow VF that is quarantined for another cause: what is there to be undone is its own", async () => {
  const { inventory, take, slow, clock, codes } = setUp();
  const work = slow(first);
  const vf = take();
  const binding = vf.bind(signal, isThere);
  await settled();
  inventory.raise(first, { code: "write-stuck", error: "it is stuck" });
  await clock.pass(PATIENCE_MS);
  assert.deepEqual([vf.address, inventory.ofConnection("c1")?.address, codes(first)], [first, first, ["write-stuck"]]);
  work.resolve();
  await binding;
});

test("bind() leaves a VF that the host uses to who has seen that: no time of ours ends it", async () => {
  const { bound, used, take, codes, clock } = setUp();
  used.set(first, "it has an address");
  const vf = take();
  await vf.bind(signal, isThere);
  assert.deepEqual([bound, vf.address, codes(first), clock.timerCount], [[second], second, ["host-use"], 0]);
});

test("a slow VF whose driver fails in the end is given to others after a while, one whose write hangs only when it is served", async () => {
  for (const [fault, later] of [
    [refused(first), "idle"],
    [new DriverError(first, { kind: "bind-refused", driver: "igbvf", code: "EIO" }), "idle"],
    [new DriverError(first, { kind: "write-stuck", driver: "igbvf" }), "quarantined"],
  ] as const) {
    const { inventory, take, slow, clock, codes } = setUp();
    const work = slow(first);
    const binding = take().bind(signal, isThere);
    await clock.pass(PATIENCE_MS);
    await binding;
    inventory.setDriver(first, "vfio-pci");
    work.reject(fault);
    await settled();
    assert.deepEqual(codes(first), [later === "idle" ? "bind-failed" : "write-stuck"]);
    await clock.pass(PAUSE_MS);
    assert.equal(inventory.get(first)?.state, later, "another driver is not its own");
    inventory.setDriver(first, "igbvf");
    await clock.pass(PAUSE_MS);
    assert.deepEqual([inventory.get(first)?.state, clock.timerCount], ["idle", 0]);
  }
});

test("a slow VF that was away meanwhile is not said to be restored by what was requested of the one before", async () => {
  const { take, slow, clock, log, sync } = setUp();
  const work = slow(first);
  const binding = take().bind(signal, isThere);
  await clock.pass(PATIENCE_MS);
  await binding;
  sync(second, third, fourth);
  sync(...vfs);
  work.resolve();
  await settled();
  assert.deepEqual(log.of("vf-restored"), []);
});

const stuck = (error: string): VfCondition => ({ code: "write-stuck", error });

test("a VF that is set aside again is observed for the latter cause alone, and one that has gone no more", async () => {
  const { inventory, take, binding, clock, sync } = setUp();
  binding.set(first, () => Promise.reject(new DriverError(first, { kind: "write-stuck", driver: "igbvf" })));
  const vf = take();
  await vf.bind(signal, isThere);
  assert.equal(clock.timerCount, 1);
  inventory.setDriver(first, undefined);
  inventory.raise(first, stuck("again, for another one"));
  await clock.pass(PAUSE_MS);
  assert.equal(clock.timerCount, 0, "who has raised that observes it");
  inventory.clear(first, "write-stuck");
  const other = setUp();
  other.binding.set(first, () => Promise.reject(new DriverError(first, { kind: "write-stuck", driver: "igbvf" })));
  await other.take().bind(signal, isThere);
  other.sync(second, third, fourth);
  await other.clock.pass(PAUSE_MS);
  assert.equal(other.clock.timerCount, 0);
  sync(...vfs);
});

test("a VF with a foreign link stays set aside as long as the kernel does not say whose link is there", async () => {
  const { inventory, take, sound, clock } = setUp();
  const vf = take();
  const foreign = { kind: "not-its-link", vf: first, link: "eth1", ifindex: 7, owner: "PCI function 0000:02:00.0" };
  vf.withholdIfForeign(new Error("something else"));
  assert.deepEqual(inventory.get(first)?.conditions, []);
  vf.withholdIfForeign(new NetdevError(foreign as never));
  vf.setReclaiming();
  vf.giveBack();
  sound.isSound = () => Promise.reject(new Error("the kernel does not answer"));
  await clock.pass(PAUSE_MS);
  assert.equal(inventory.get(first)?.state, "quarantined");
  sound.isSound = async (address) => address === first;
  await clock.pass(PAUSE_MS);
  await setImmediate();
  assert.deepEqual([inventory.get(first)?.state, clock.timerCount], ["idle", 0]);
});

test("giveBack() has a VF judged again with which something was wrong, and observed for late writes only after a network device", () => {
  for (const use of ["kernel", "vfio"] as const) {
    const { inventory, take, entries, judged, codes } = setUp();
    const vf = take();
    entries.set(first, { use, address: first, connectionId: "c1" } as unknown as VfEntry);
    vf.setReady();
    vf.setReclaiming();
    vf.giveBack();
    assert.deepEqual([codes(first), judged], [use === "kernel" ? ["recently-restored"] : [], []]);
    assert.equal(entries.size, 0);
    const next = take("c2");
    inventory.raise(first, { code: "driver-taken", driver: undefined });
    next.giveBack();
    assert.deepEqual(judged, ["judge"]);
  }
});

test("take() names the PFs that cannot be used where the token is of no resource, and says nothing of them otherwise", () => {
  const taken = (setup: ReturnType<typeof setUp>, tokenId: string) => () =>
    setup.holds.take({ connectionId: "c9", tokenId, use: "vfio" });
  const well = setUp();
  assert.throws(taken(well, "sriov-?"), { fault: { kind: "unknown-token" } });
  const ill = setUp({ refusals: ["Cannot use 0000:02:00.0"] });
  assert.throws(taken(ill, "sriov-?"), { fault: { kind: "unknown-token", unusablePfs: ["Cannot use 0000:02:00.0"] } });
  const tokenId = ill.inventory.devicesOf("d/x")[0]?.id ?? "";
  assert.throws(taken(ill, tokenId), /without an IOMMU group/);
});
