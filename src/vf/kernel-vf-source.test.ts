import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { type Clock, systemRandom } from "../async/index.ts";
import { conditionOf, Inventory } from "../inventory/index.ts";
import type { Netns } from "../kernel/index.ts";
import { NetdevError } from "../netdev/index.ts";
import { type DriverBinder, DriverError, type DriverFault, type PciAddress, parsePciAddress } from "../pci/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { VfEntry } from "./connection-journal.ts";
import { VfHolds } from "./held-vf.ts";
import { kernelVfSource } from "./kernel-vf-source.ts";

const pf = parsePciAddress("01:00.0");
const [first, second] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.1")];
const { signal } = new AbortController();

const NOT_ITS_LINK = { kind: "not-its-link", link: "eth1", ifindex: 7, owner: "PCI function 0000:02:00.0" } as const;

/**
 * A node with two functions, and a binder that fails for those in `faults`, and for `slow` ones when their promise says so. The host
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
    async bind({ address }: { readonly address: string }) {
      bound.push(address);
      await slow.get(address);
      const fault = faults.get(address);
      if (fault) throw new DriverError(parsePciAddress(address), fault);
    },
    netdevOf: async () => ({ ifname: "eth1", ifindex: 7 }),
  } as unknown as DriverBinder;
  const pfDoor = () => assert.fail("no settings are needed to bind");
  const host = {} as Netns;
  const openRtnl = () => assert.fail("nothing is done to links to bind");
  const forgotten: string[] = [];
  const vfs = new Map<PciAddress, VfEntry>();
  const journal = { vfs, keepVf: async () => {}, forgetVf: (address: string) => void forgotten.push(address) };
  const watchPod = async () => () => {};
  const verifyLink = async (address: string) => {
    if (foreign.has(address)) throw new NetdevError({ ...NOT_ITS_LINK, vf: address });
  };
  const linkOwnerOf = () => assert.fail("nothing is attached");
  const isLinkSound = async (address: string) => !foreign.has(address);
  const links = { verifyLink, linkOwnerOf, isLinkSound };
  const parts = {
    ...links,
    journal,
    inventory,
    binder,
    host,
    openRtnl,
    random: systemRandom,
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
  const source = kernelVfSource({ ...parts, holds });
  const passTime = () => {
    for (const timer of timers.splice(0)) if (!timer.isCancelled) timer.run();
  };
  const tokenOf = (address: string) =>
    inventory.devicesOf("d/x").find((device) => device.address === address)?.id ?? assert.fail(address);
  return { inventory, source, holds, vfs, bound, forgotten, passTime, tokenId: tokenOf(first) };
}

test("bind() gives the connection another function when its own fails, and the failed one another chance later", async () => {
  const { inventory, source, bound, passTime, tokenId } = setUp(new Map([[first, { kind: "no-netdev" }]]));
  const vf = source.take({ connectionId: "c1", tokenId });
  await vf.bind(signal);
  assert.deepEqual([bound, vf.address], [[first, second], second]);
  assert.equal(inventory.ofConnection("c1")?.address, second);
  assert.match(inventory.get(first)?.problem ?? "", /Cannot find the network device/);
  passTime();
  assert.equal(inventory.get(first)?.problem, undefined);
});

test("bind() gives the connection another function when the host has begun to use its own, which is not touched", async () => {
  const { inventory, source, bound, passTime, tokenId } = setUp(
    new Map(),
    new Map(),
    new Map([[first, "eth0 is a port of br0"]]),
  );
  const vf = source.take({ connectionId: "c1", tokenId });
  await vf.bind(signal);
  assert.deepEqual([bound, vf.address], [[second], second]);
  passTime();
  assert.equal(inventory.get(first)?.problem, "eth0 is a port of br0");
});

test("bind() sets a function aside whose write hangs, until its driver serves it again", async () => {
  const { inventory, source, passTime, tokenId } = setUp(new Map([[first, { kind: "write-stuck", driver: "igbvf" }]]));
  await source.take({ connectionId: "c1", tokenId }).bind(signal);
  assert.equal(inventory.get(first)?.state, "quarantined");
  passTime();
  assert.equal(inventory.get(first)?.state, "quarantined");
  await setImmediate();
  inventory.setDriver(first, "igbvf");
  passTime();
  await setImmediate();
  assert.equal(inventory.get(first)?.state, "idle");
});

test("bind() withholds a function in whose place another device's link stands, until its own is there again", async () => {
  const foreign = new Set<string>([first]);
  const { inventory, source, passTime, tokenId } = setUp(new Map(), new Map(), new Map(), foreign);
  const vf = source.take({ connectionId: "c1", tokenId });
  await vf.bind(signal);
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

test("bind() leaves a function that takes long, and what comes of it decides whether others get it", async () => {
  const stuck = new DriverError(first, { kind: "write-stuck", driver: "igbvf" });
  for (const [outcome, state, problem] of [
    [undefined, "idle", undefined],
    [stuck, "quarantined", stuck.message],
    [new DriverError(first, { kind: "no-netdev" }), "idle", new DriverError(first, { kind: "no-netdev" }).message],
  ] as const) {
    const work = Promise.withResolvers<void>();
    const { inventory, source, passTime, tokenId } = setUp(new Map(), new Map([[first, work.promise]]));
    const vf = source.take({ connectionId: "c1", tokenId });
    const binding = vf.bind(signal);
    passTime();
    await binding;
    assert.deepEqual([vf.address, inventory.get(first)?.state], [second, "quarantined"]);
    if (outcome) work.reject(outcome);
    else work.resolve();
    await setImmediate();
    assert.deepEqual([inventory.get(first)?.state, inventory.get(first)?.problem], [state, problem]);
  }
});

test("bind() waits for its function when there is no other, and fails as that does", async () => {
  const work = Promise.withResolvers<void>();
  const { inventory, source, passTime, tokenId } = setUp(new Map(), new Map([[first, work.promise]]));
  inventory.raise(second, { code: "netdev-missing" });
  const vf = source.take({ connectionId: "c1", tokenId });
  const binding = vf.bind(signal);
  passTime();
  assert.equal(inventory.get(first)?.connectionId, "c1");
  work.resolve();
  await binding;
  assert.deepEqual([vf.address, inventory.get(first)?.state], [first, "preparing"]);
});

test("bind() that failed takes back its own word about a function and nobody else's", async () => {
  const { inventory, source, passTime, tokenId } = setUp(new Map([[first, { kind: "no-netdev" }]]));
  await source.take({ connectionId: "c1", tokenId }).bind(signal);
  inventory.raise(first, { code: "pf-without-carrier", error: "its PF is down" });
  passTime();
  assert.equal(inventory.get(first)?.problem, "its PF is down");
});

test("bind() says what was wrong with the last function when none is left, and holds none then", async () => {
  const faults = new Map<string, DriverFault>([
    [first, { kind: "bind-refused", driver: "igbvf", code: "EIO" }],
    [second, { kind: "no-netdev" }],
  ]);
  const { inventory, source, bound, tokenId } = setUp(faults);
  const vf = source.take({ connectionId: "c1", tokenId });
  await assert.rejects(vf.bind(signal), { fault: { kind: "no-netdev" } });
  assert.deepEqual(bound, [first, second]);
  assert.equal(inventory.ofConnection("c1"), undefined);
  await vf.detach("home");
  await vf.giveBack();
});

test("bind() keeps a function back whose driver does not answer, and tries no other without the driver", async () => {
  const stuck = setUp(new Map([[first, { kind: "write-stuck", driver: "igbvf" }]]));
  const vf = stuck.source.take({ connectionId: "c1", tokenId: stuck.tokenId });
  await vf.bind(signal);
  stuck.passTime();
  assert.equal(stuck.inventory.get(first)?.state, "quarantined");

  const missing = setUp(new Map([[first, { kind: "driver-missing", driver: "igbvf" }]]));
  const other = missing.source.take({ connectionId: "c1", tokenId: missing.tokenId });
  await assert.rejects(other.bind(signal), { fault: { kind: "driver-missing", driver: "igbvf" } });
  assert.deepEqual(missing.bound, [first]);
});

test("giveBack() leaves a function that is kept back in the journal: a restart alone makes nothing sound", async () => {
  const { inventory, source, forgotten, tokenId } = setUp(new Map());
  const contradiction = { code: "contradicts-journal", error: "it was out" } as const;
  for (const isKeptBack of [true, false]) {
    const vf = source.take({ connectionId: "c1", tokenId });
    if (isKeptBack) inventory.raise(first, contradiction);
    await vf.giveBack();
    assert.deepEqual(forgotten, isKeptBack ? [] : [first]);
    assert.equal(inventory.ofConnection("c1"), undefined);
    inventory.clear(first, contradiction);
  }
});

test("giveBack() has a VF observed for late writes, until another client has it", async () => {
  const { inventory, source, holds, vfs, tokenId } = setUp(new Map());
  const before = { use: "kernel", address: first, connectionId: "c1" } as unknown as VfEntry;
  vfs.set(first, before);
  await source.take({ connectionId: "c1", tokenId }).giveBack();
  const codes = () => inventory.get(first)?.conditions;
  assert.deepEqual(codes(), [{ code: "recently-restored", sinceMs: 0, before }]);
  const next = holds.take({ connectionId: "c2", tokenId, use: "kernel" });
  assert.equal(codes()?.length, 1, "it may be given back untouched");
  next.setReady();
  assert.deepEqual(codes(), []);
});
