import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { paperUnrestored } from "../../../test/scenes/paper-unrestored.ts";
import { kernelEntry } from "../../../test/scenes/paper-vfs.ts";
import type { Clock } from "../../async/index.ts";
import { conditionOf, Inventory } from "../../inventory/index.ts";
import { Netns } from "../../kernel/index.ts";
import { type HostLinks, NetdevError } from "../../netdev/index.ts";
import type { Attachment } from "../../nsm/index.ts";
import { type DriverBinder, DriverError, type DriverFault, type PciAddress, parsePciAddress } from "../../pci/index.ts";
import { recordingLog } from "../../telemetry/recording-log.ts";
import { VfHolds } from "../held-vf.ts";
import type { KernelVfEntry, VfEntry } from "../journal-entries.ts";
import { kernelDriver } from "./kernel-attachment.ts";

const pf = parsePciAddress("01:00.0");
const [first, second] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.1")];
const { signal } = new AbortController();
/** The client's; the host's is another in these tests. */
const netns = { text: "inode://4/1", dev: 4n, ino: 1n };
const files = { receive: async () => Netns.current().fd };
const opened: Attachment[] = [];

afterEach(() => {
  for (const attachment of opened.splice(0)) attachment.close();
});

const NOT_ITS_LINK = { kind: "not-its-link", link: "eth1", ifindex: 7, owner: "PCI function 0000:02:00.0" } as const;

/** What a binder says of a VF with its network device. */
const eth1 = async () => ({ ifname: "eth1", ifindex: 7 });
const PRESENT = { netdevOf: eth1, netdevNow: eth1, isPresent: async () => true };

/**
 * A node with two VFs, and a binder that fails for those in `faults`, and for `slow` ones when their promise says so. The host
 * has begun to use those in `used`; the links of those in `foreign` belong to another device.
 */
function setUp(
  faults: Map<string, DriverFault>,
  slow = new Map<string, Promise<void>>(),
  used: ReadonlyMap<PciAddress, string> = new Map(),
  foreign = new Set<string>(),
) {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf, iommuGroup: undefined, numaNode: undefined, kernelDriver: "igbvf", driver: undefined };
  inventory.sync(
    pf,
    [first, second].map((address, index) => ({ ...common, address, index, resources: ["d/x"] })),
  );
  const timers: { readonly run: () => void; isCancelled: boolean }[] = [];
  const clock = {
    monotonicMs: () => 0,
    after(_delayMs: number, run: () => void) {
      const timer = { run, isCancelled: false };
      timers.push(timer);
      return {
        cancel() {
          timer.isCancelled = true;
        },
      };
    },
  } as unknown as Clock;
  const bound: string[] = [];
  const binder = {
    hasStuckWrite: () => false,
    async bind({ address }: { readonly address: string }) {
      bound.push(address);
      await slow.get(address);
      const fault = faults.get(address);
      if (fault) throw new DriverError(parsePciAddress(address), fault);
    },
    ...PRESENT,
  } as unknown as DriverBinder;
  const pfDoor = () => assert.fail("no settings are needed to bind");
  const host = { id: { dev: 0n, ino: 0n } } as Netns;
  const forgotten: string[] = [];
  const vfs = new Map<PciAddress, VfEntry>();
  const unrestored = paperUnrestored();
  const forgetVf = (address: string) => void forgotten.push(address);
  const journal = { vfs, unrestored, keepVf: async () => {}, forgetVf };
  const watchPod = async () => () => {};
  const links = {
    netns: host,
    async verified(address: string) {
      if (foreign.has(address)) throw new NetdevError({ ...NOT_ITS_LINK, vf: address });
    },
    netnsOf: Netns.fromFd,
  } as unknown as HostLinks;
  const isLinkSound = async (address: string) => !foreign.has(address);
  const parts = {
    links,
    isLinkSound,
    journal,
    inventory,
    binder,
    pfDoor,
    watchPod,
    clock,
    log: recordingLog(),
  };
  const hostUse = {
    async refuse(address: PciAddress) {
      const vf = inventory.get(address);
      const how = (vf && conditionOf(vf, "host-use")?.how) ?? used.get(address);
      if (how === undefined) return;
      inventory.raise(address, { code: "host-use", how });
      throw new DriverError(address, { kind: "host-uses-it", how });
    },
  };
  const survey = { judge() {}, refusals: [] };
  const holds = new VfHolds({ ...parts, survey, hostUse });
  const driver = kernelDriver({ ...parts, survey: { pfs: new Map() }, holds });
  const passTime = () => {
    for (const timer of timers.splice(0)) if (!timer.isCancelled) timer.run();
  };
  const tokenOf = (address: string) =>
    inventory.devicesOf("d/x").find((device) => device.address === address)?.id ?? assert.fail(address);
  const tokenId = tokenOf(first);
  const desired = { type: "KERNEL", tokenId, interfaceName: "nsm-1", netns, bare: false } as const;
  const request = { connectionId: "c1", desired, files, signal };
  const take = () => {
    const attachment = driver.adopt(request);
    opened.push(attachment);
    return {
      prepare: () => attachment.prepare(request),
      release: () => attachment.release(),
      get address() {
        return attachment.parameters["pciAddress"];
      },
    };
  };
  return { inventory, take, holds, vfs, unrestored, bound, forgotten, passTime, tokenId };
}

test("prepare() gives the connection another VF when its own fails, and the failed one another chance later", async () => {
  const { inventory, take, bound, passTime } = setUp(new Map([[first, { kind: "no-netdev" }]]));
  const vf = take();
  await vf.prepare();
  assert.deepEqual([bound, vf.address], [[first, second], second]);
  assert.equal(inventory.ofConnection("c1")?.address, second);
  assert.match(inventory.get(first)?.problem ?? "", /Cannot find the network device/);
  passTime();
  assert.equal(inventory.get(first)?.problem, undefined);
});

/** Of the first one, that had that name in the host. */
function entryCalled(name: string): KernelVfEntry {
  const { state, ...entry } = kernelEntry(first);
  return { ...entry, state: { ...state, original: { ...state.original, name } } };
}

for (const [says, name, isKnown, state] of [
  ["that has lost its name on its way in is cleaned, which keeps that", "eth5", false, "reclaiming"],
  ["that waits for its name already is free", "eth5", true, "idle"],
  ["that has its name is free", "eth1", false, "idle"],
] as const) {
  test(`release() of a VF that never was with its client: one ${says}`, async () => {
    const { inventory, take, vfs, unrestored } = setUp(new Map());
    const vf = take();
    await vf.prepare();
    const entry = entryCalled(name);
    vfs.set(first, entry);
    if (isKnown) await unrestored.keep(first, { before: entry });
    await vf.release();
    assert.equal(inventory.get(first)?.state, state);
  });
}

test("prepare() gives the connection another VF when the host has begun to use its own, which is not touched", async () => {
  const { inventory, take, bound, passTime } = setUp(new Map(), new Map(), new Map([[first, "eth0 is a port of br0"]]));
  const vf = take();
  await vf.prepare();
  assert.deepEqual([bound, vf.address], [[second], second]);
  passTime();
  assert.equal(inventory.get(first)?.problem, "eth0 is a port of br0");
});

test("prepare() sets a VF aside whose write hangs, until a driver has it", async () => {
  const { inventory, take, passTime } = setUp(new Map([[first, { kind: "write-stuck", driver: "igbvf" }]]));
  await take().prepare();
  assert.equal(inventory.get(first)?.state, "quarantined");
  passTime();
  assert.equal(inventory.get(first)?.state, "quarantined");
  await setImmediate();
  inventory.setDriver(first, "igbvf");
  passTime();
  await setImmediate();
  assert.equal(inventory.get(first)?.state, "idle");
});

test("prepare() withholds a VF in whose place another device's link is, until its own is there again", async () => {
  const foreign = new Set<string>([first]);
  const { inventory, take, passTime } = setUp(new Map(), new Map(), new Map(), foreign);
  const vf = take();
  await vf.prepare();
  assert.equal(vf.address, second);
  assert.equal(inventory.get(first)?.state, "quarantined");
  assert.match(inventory.get(first)?.problem ?? "", /link eth1 \(index 7\) .* sits on PCI function 0000:02:00.0/);
  passTime();
  await setImmediate();
  assert.equal(inventory.get(first)?.state, "quarantined");
  foreign.clear();
  passTime();
  await setImmediate();
  assert.equal(inventory.get(first)?.state, "idle");
});

test("prepare() leaves a VF that takes long, and what comes of it decides whether others get it", async () => {
  const stuck = new DriverError(first, { kind: "write-stuck", driver: "igbvf" });
  for (const [outcome, state, problem] of [
    [undefined, "idle", undefined],
    [stuck, "quarantined", stuck.message],
    [new DriverError(first, { kind: "no-netdev" }), "idle", new DriverError(first, { kind: "no-netdev" }).message],
  ] as const) {
    const work = Promise.withResolvers<void>();
    const { inventory, take, passTime } = setUp(new Map(), new Map([[first, work.promise]]));
    const vf = take();
    const binding = vf.prepare();
    passTime();
    await binding;
    assert.deepEqual([vf.address, inventory.get(first)?.state], [second, "quarantined"]);
    if (outcome) work.reject(outcome);
    else work.resolve();
    await setImmediate();
    assert.deepEqual([inventory.get(first)?.state, inventory.get(first)?.problem], [state, problem]);
  }
});

test("prepare() waits for its VF when there is no other, and fails as that does", async () => {
  const work = Promise.withResolvers<void>();
  const { inventory, take, passTime } = setUp(new Map(), new Map([[first, work.promise]]));
  inventory.raise(second, { code: "netdev-missing" });
  const vf = take();
  const binding = vf.prepare();
  passTime();
  assert.equal(inventory.get(first)?.connectionId, "c1");
  work.resolve();
  await binding;
  assert.deepEqual([vf.address, inventory.get(first)?.state], [first, "preparing"]);
});

test("prepare() that failed clears its own condition of a VF and no other", async () => {
  const { inventory, take, passTime } = setUp(new Map([[first, { kind: "no-netdev" }]]));
  await take().prepare();
  inventory.raise(first, { code: "pf-without-carrier", error: "its PF is down" });
  passTime();
  assert.equal(inventory.get(first)?.problem, "its PF is down");
});

test("prepare() says what was wrong with the last VF when none is left, and holds none then", async () => {
  const faults = new Map<string, DriverFault>([
    [first, { kind: "bind-refused", driver: "igbvf", code: "EIO" }],
    [second, { kind: "no-netdev" }],
  ]);
  const { inventory, take, bound } = setUp(faults);
  const vf = take();
  await assert.rejects(vf.prepare(), { fault: { kind: "no-netdev" } });
  assert.deepEqual(bound, [first, second]);
  assert.equal(inventory.ofConnection("c1"), undefined);
  await vf.release();
});

test("prepare() quarantines a VF whose driver does not answer, and tries no other without the driver", async () => {
  const stuck = setUp(new Map([[first, { kind: "write-stuck", driver: "igbvf" }]]));
  const vf = stuck.take();
  await vf.prepare();
  stuck.passTime();
  assert.equal(stuck.inventory.get(first)?.state, "quarantined");

  const missing = setUp(new Map([[first, { kind: "driver-missing", driver: "igbvf" }]]));
  const other = missing.take();
  await assert.rejects(other.prepare(), { fault: { kind: "driver-missing", driver: "igbvf" } });
  assert.deepEqual(missing.bound, [first]);
});

test("release() leaves a VF that is quarantined in the journal: a restart alone makes nothing sound", async () => {
  const { inventory, take, forgotten } = setUp(new Map());
  const contradiction = { code: "contradicts-journal", error: "it was out" } as const;
  for (const isKeptBack of [true, false]) {
    const vf = take();
    if (isKeptBack) inventory.raise(first, contradiction);
    await vf.release();
    assert.deepEqual(forgotten, isKeptBack ? [] : [first]);
    assert.equal(inventory.ofConnection("c1"), undefined);
    inventory.clear(first, contradiction);
  }
});

test("release() has a VF watched for late writes, until another client has it", async () => {
  const { inventory, take, holds, vfs, tokenId } = setUp(new Map());
  const before = entryCalled("eth1");
  vfs.set(first, before);
  await take().release();
  const codes = () => inventory.get(first)?.conditions;
  assert.deepEqual(codes(), [{ code: "recently-restored", sinceMs: 0, before }]);
  const next = holds.take({ connectionId: "c2", tokenId, use: "kernel" });
  assert.equal(codes()?.length, 1, "it may be given back untouched");
  next.setReady();
  assert.deepEqual(codes(), []);
});
