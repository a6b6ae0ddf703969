// One VF from the moment it is taken until it is given back, while drivers are slow, fail, or answer when no caller waits any more.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { Inventory, type VfCondition } from "../inventory/index.ts";
import { type AttachmentState, NetdevError } from "../netdev/index.ts";
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
  const stuckWrites = new Set<PciAddress>();
  const binding = new Map<PciAddress, () => Promise<void>>();
  const entries = new Map<PciAddress, VfEntry>();
  const judged: string[] = [];
  const used = new Map<PciAddress, string>();
  const sound = { isSound: async (_address: PciAddress): Promise<boolean> => true };
  const disk = { keep: async (_entry: VfEntry): Promise<void> => {} };
  const holds = new VfHolds({
    inventory,
    binder: {
      hasStuckWrite: (address: PciAddress) => stuckWrites.has(address),
      async bind({ address }: { readonly address: PciAddress }) {
        bound.push(address);
        await binding.get(address)?.();
      },
    } as unknown as DriverBinder,
    journal: { vfs: entries, keepVf: (entry) => disk.keep(entry), forgetVf: (address) => void entries.delete(address) },
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
  return {
    inventory,
    clock,
    log,
    bound,
    stuckWrites,
    binding,
    used,
    entries,
    judged,
    sound,
    disk,
    holds,
    take,
    slow,
    codes,
    sync,
  };
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

test("a slow VF whose driver fails in the end is given to others after a while, one whose write hangs only when that has returned", async () => {
  for (const [fault, later] of [
    [refused(first), "idle"],
    [new DriverError(first, { kind: "bind-refused", driver: "igbvf", code: "EIO" }), "idle"],
    [new DriverError(first, { kind: "write-stuck", driver: "igbvf" }), "quarantined"],
  ] as const) {
    const { inventory, take, slow, clock, codes, stuckWrites } = setUp();
    const work = slow(first);
    const binding = take().bind(signal, isThere);
    await clock.pass(PATIENCE_MS);
    await binding;
    stuckWrites.add(first);
    work.reject(fault);
    await settled();
    assert.deepEqual(codes(first), [later === "idle" ? "bind-failed" : "write-stuck"]);
    await clock.pass(PAUSE_MS);
    assert.equal(inventory.get(first)?.state, later);
    stuckWrites.clear();
    inventory.setDriver(first, undefined);
    await clock.pass(PAUSE_MS);
    assert.equal(inventory.get(first)?.state, later, "no driver has it");
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

test("leaveToBeCleaned() holds a VF until the journal has it as left or cannot be written, and lets no client get it on the way", async () => {
  const { inventory, take, entries, disk, codes, log } = setUp();
  const vf = take();
  const entry = { use: "kernel", address: first, connectionId: "c1" } as unknown as VfEntry;
  entries.set(first, entry);
  const [work, kept] = [Promise.withResolvers<void>(), [] as VfEntry[]];
  disk.keep = (written) => {
    kept.push(written);
    return work.promise;
  };
  const states = new Set<string | undefined>();
  inventory.onChange(() => states.add(inventory.get(first)?.state));
  const leaving = vf.leaveToBeCleaned();
  await settled();
  assert.deepEqual([kept, inventory.ofConnection("c1")?.address], [[{ ...entry, isLeft: true }], first]);
  work.reject(new Error("the disk is full"));
  await leaving;
  assert.deepEqual([codes(first), inventory.ofConnection("c1")], [["being-cleaned"], undefined]);
  assert.deepEqual([states.has("idle"), log.of("journal-not-written").length], [false, 1]);
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

test("bind() that leaves a slow VF offers it to no other connection on the way", async () => {
  const { inventory, slow, take, clock } = setUp();
  const work = slow(first);
  const states = new Set<string | undefined>();
  inventory.onChange(() => states.add(inventory.get(first)?.state));
  const binding = take().bind(signal, isThere);
  await clock.pass(PATIENCE_MS);
  await binding;
  assert.deepEqual(
    [...states].filter((state) => state === "idle"),
    [],
    [...states].join(),
  );
  work.resolve();
  await settled();
});

test("bind() keeps a slow VF where there is no other one, at no moment as no connection's: it would be restored then", async () => {
  const { inventory, slow, take, clock, log, sync } = setUp();
  sync(first);
  const work = slow(first);
  inventory.onChange(() => {
    if (inventory.get(first)?.connectionId === undefined) inventory.raise(first, drifted);
  });
  const vf = take();
  const binding = vf.bind(signal, isThere);
  await clock.pass(PATIENCE_MS);
  work.resolve();
  await binding;
  const { connectionId, conditions } = inventory.get(first) ?? {};
  assert.deepEqual([vf.address, connectionId, conditions, log.of("vf-not-replaced").length], [first, "c1", [], 1]);
});

const cleaning = { code: "being-cleaned" } as const;
const drifted = { code: "drifted", before: { state: {} as AttachmentState } } as const;

/** A node whose VFs are all being cleaned. */
function cleaningAll() {
  const node = setUp();
  for (const address of vfs) node.inventory.raise(address, cleaning);
  const tokenId = node.inventory.devicesOf("d/x").find(({ address }) => address === first)?.id ?? "";
  const soon = (caller: AbortSignal = signal) =>
    node.holds.takeSoon({ connectionId: "c1", tokenId, use: "kernel" }, caller);
  return { ...node, soon };
}

test("takeSoon() waits for a VF that is being cleaned, and for no other news", async () => {
  const { inventory, soon } = cleaningAll();
  const taken: PciAddress[] = [];
  const taking = soon().then(({ address }) => taken.push(address));
  await settled();
  inventory.raise(second, { code: "driver-binding" });
  await settled();
  assert.deepEqual(taken, []);
  inventory.clear(third, cleaning);
  await taking;
  assert.deepEqual(taken, [third]);
});

test("takeSoon() takes another VF of the resource at once", async () => {
  const { inventory, soon } = cleaningAll();
  inventory.clear(fourth, cleaning);
  assert.equal((await soon()).address, fourth);
});

test("takeSoon() waits on where another connection was faster", async () => {
  const { inventory, holds, soon } = cleaningAll();
  const tokenId = inventory.devicesOf("d/x").find(({ address }) => address === second)?.id ?? "";
  const taking = soon();
  await settled();
  const stop = inventory.onChange(() => {
    stop();
    holds.take({ connectionId: "faster", tokenId, use: "kernel" });
  });
  inventory.clear(second, cleaning);
  await settled();
  inventory.clear(third, cleaning);
  assert.equal((await taking).address, third);
  assert.equal(inventory.get(second)?.connectionId, "faster");
});

test("takeSoon() gives up with its caller, and with what no cleaning ends", async () => {
  const { inventory, soon } = cleaningAll();
  const caller = new AbortController();
  const taking = soon(caller.signal);
  await settled();
  caller.abort(new Error("the caller has gone"));
  await assert.rejects(taking, /the caller has gone/);
  const failing = soon();
  await settled();
  for (const address of vfs) inventory.raise(address, { code: "write-stuck", error: "" });
  for (const address of vfs) inventory.clear(address, cleaning);
  await assert.rejects(failing, /of 4, 4 quarantined/);
});

test("takeSoon() waits for a VF that is being restored, until that fails", async () => {
  for (const outcome of ["restored", "fails"] as const) {
    const { inventory, soon } = cleaningAll();
    for (const address of vfs) {
      inventory.raise(address, { code: "write-stuck", error: "" });
      inventory.clear(address, cleaning);
    }
    inventory.raise(second, drifted);
    inventory.clear(second, "write-stuck");
    const taking = soon().then(({ address }) => address, String);
    await settled();
    if (outcome === "restored") inventory.clear(second, "drifted");
    else
      inventory.raise(second, {
        code: "repair-failed",
        repair: "restore",
        error: "",
        tries: 1,
        sinceMs: 0,
        againMs: 1,
      });
    const got = await taking;
    if (outcome === "restored") assert.equal(got, second);
    else assert.match(got, /of 4, 4 quarantined/);
  }
});

test("takeSoon() does not wait for VFs that have gone, and hears no news when it is over", async () => {
  const { inventory, soon, sync } = cleaningAll();
  const onChange = inventory.onChange.bind(inventory);
  let listeners = 0;
  inventory.onChange = (listener) => {
    listeners += 1;
    const stop = onChange(listener);
    return () => {
      listeners -= 1;
      stop();
    };
  };
  const ended: unknown[] = [];
  void soon().catch((error: unknown) => ended.push(error));
  await settled();
  assert.equal(listeners, 1);
  sync();
  await settled();
  assert.deepEqual([ended.length, listeners], [1, 0]);
});
