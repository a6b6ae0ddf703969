import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import type { DeviceAccess, GrantAsk } from "../../access/index.ts";
import { systemRandom } from "../../async/index.ts";
import { ConnectionContextSchema } from "../../gen/connectioncontext_pb.ts";
import { Inventory } from "../../inventory/index.ts";
import type { PfPort, VfSettings } from "../../netdev/index.ts";
import { HandClock } from "../../nsm/testing/fakes.ts";
import { type DriverBinder, DriverError, type PciAddress, parsePciAddress } from "../../pci/index.ts";
import { silentLog } from "../../telemetry/index.ts";
import { VfHolds } from "../held-vf.ts";
import type { VfEntry } from "../journal-entries.ts";
import { vfioDriver } from "./vfio-attachment.ts";
import { AdoptedGrants } from "./vfio-entry.ts";

const pf = parsePciAddress("01:00.0");
const [first, second] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.1")];
const { signal } = new AbortController();
const UID = "0f3b7c1e-9d5a-4c61-8a3e-2b1f6d7e8c90";
const asked = { mac: "02:00:00:00:00:01", vlan: 5, cgroupDir: "kubepods/pod-a/*" };

/** A node with two VFs of one IOMMU group; `done` has what a process outside could see, in its order. */
function setUp() {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf, iommuGroup: 7, numaNode: undefined, kernelDriver: "igbvf", driver: undefined };
  inventory.sync(
    pf,
    [first, second].map((address, index) => ({ ...common, address, index, resources: ["d/x"] })),
  );
  const done: string[] = [];
  const openGroups = new Set<PciAddress>();
  /** Drivers that bind a VF only when this has come. */
  const slow = new Map<PciAddress, Promise<void>>();
  const settings = new Map<number, VfSettings>();
  const failing = new Set<keyof VfSettings>();
  const clock = new HandClock();
  const port: PfPort = {
    pf: "0000:01:00.0 (enp1s0f0, driver igb)",
    read: async (vf) => settings.get(vf) ?? { mac: "00:00:00:00:00:00", vlan: 0 },
    async write(vf, change) {
      for (const [setting, value] of Object.entries(change)) {
        if (failing.has(setting as keyof VfSettings)) throw new Error(`${setting} refused`);
        done.push(`${setting}=${value}`);
      }
      settings.set(vf, { ...(await port.read(vf)), ...change });
    },
  };
  const binder = {
    async bind({ address }: { readonly address: PciAddress }) {
      done.push(`bind ${address}`);
      await slow.get(address);
    },
    isPresent: async () => true,
    vfio: {
      deviceOf: async () => ({ group: 7, container: { major: 10, minor: 196 }, device: { major: 245, minor: 7 } }),
      async refuseOpen(address: PciAddress) {
        done.push(`look who has ${address} open`);
        if (openGroups.has(address)) throw new DriverError(address, { kind: "group-open", group: 7, processes: [] });
      },
    },
  } as unknown as DriverBinder;
  const access = {
    open({ cgroupDir, devices, connectionId, record }: GrantAsk) {
      const state = { connectionId, podUid: UID, containers: "*", devices, wrote: [] };
      return {
        state,
        async apply() {
          await record(state);
          done.push(`let ${cgroupDir} in`);
        },
        revoke: async () => void done.push(`keep ${cgroupDir} out`),
      };
    },
  } as unknown as DeviceAccess;
  const journal = { vfs: new Map<PciAddress, VfEntry>(), keepVf: async () => {}, forgetVf() {} };
  const { mac: srcMac, vlan: vlanTag } = asked;
  const context = create(ConnectionContextSchema, { ethernetContext: { srcMac, vlanTag } });
  const holds = new VfHolds({
    inventory,
    binder,
    journal,
    hostUse: { refuse: async () => {} },
    survey: { judge() {}, refusals: [] },
    isLinkSound: async () => true,
    clock,
    log: silentLog,
  });
  const driver = vfioDriver({
    random: systemRandom,
    holds,
    inventory,
    binder,
    access,
    pods: { podOf: async () => ({ uid: UID, container: "app" }) },
    pfDoor: () => ({ port, settings: {} }),
    journal,
    grants: new AdoptedGrants(),
    clock,
    log: silentLog,
  });
  const take = async (address: PciAddress) => {
    const { id: tokenId = "" } = inventory.devicesOf("d/x").find((one) => one.address === address) ?? {};
    const ask = (cgroupDir: string) => {
      const files = { receive: () => assert.fail("VFIO takes no files") };
      return { connectionId: `of ${address}`, wanted: { type: "VFIO", tokenId, cgroupDir } as const, files, signal };
    };
    const attachment = await driver.open(ask(asked.cgroupDir));
    return {
      prepare: () => attachment.prepare(ask(asked.cgroupDir)),
      apply: (cgroupDir = asked.cgroupDir) => attachment.apply(ask(cgroupDir), context),
      release: () => attachment.release(),
      get address() {
        return attachment.parameters["pciAddress"];
      },
    };
  };
  return { inventory, done, openGroups, slow, failing, clock, take };
}

test("apply() lets the pod in only when the function has its MAC address and its VLAN", async () => {
  const { done, take } = setUp();
  const vf = await take(first);
  await vf.prepare();
  assert.deepEqual(done.splice(0), [`bind ${first}`, `look who has ${first} open`]);
  await vf.apply();
  assert.deepEqual(done, [`mac=${asked.mac}`, `vlan=${asked.vlan}`, `let ${asked.cgroupDir} in`]);
});

test("apply() lets nobody in where the PF refuses the VLAN", async () => {
  const { inventory, done, failing, take } = setUp();
  const vf = await take(first);
  await vf.prepare();
  failing.add("vlan");
  await assert.rejects(vf.apply(), /vlan refused/);
  assert.ok(!done.some((what) => what.startsWith("let ")), done.join());
  assert.equal(inventory.get(first)?.state, "preparing");
});

test("prepare() takes no function whose group somebody has open", async () => {
  const { done, openGroups, take } = setUp();
  openGroups.add(first).add(second);
  const vf = await take(first);
  await assert.rejects(vf.prepare(), { fault: { kind: "group-open", group: 7, processes: [] } });
  assert.ok(done.includes(`look who has ${first} open`) && done.includes(`look who has ${second} open`), done.join());
});

test("prepare() takes the second function of a group that only the pod itself has open", async () => {
  const { done, openGroups, take } = setUp();
  await (await take(first)).prepare();
  openGroups.add(first).add(second);
  done.length = 0;
  await (await take(second)).prepare();
  assert.deepEqual(done, [`bind ${second}`]);
});

test("prepare() waits for a slow driver where every other function is of the same IOMMU group", async () => {
  const { inventory, done, slow, clock, take } = setUp();
  const bound = Promise.withResolvers<void>();
  slow.set(first, bound.promise);
  const vf = await take(first);
  const binding = vf.prepare();
  await clock.pass(60_000);
  bound.resolve();
  await binding;
  assert.deepEqual([vf.address, inventory.get(first)?.state], [first, "preparing"]);
  assert.deepEqual(done, [`bind ${first}`, `look who has ${first} open`]);
});

test("apply() for other containers keeps the former ones out before it lets the new ones in", async () => {
  const { done, take } = setUp();
  const vf = await take(first);
  await vf.prepare();
  await vf.apply();
  done.length = 0;
  await vf.apply();
  assert.deepEqual(done.splice(0), [`let ${asked.cgroupDir} in`]);
  await vf.apply("kubepods/pod-a/app");
  assert.deepEqual(done.splice(0), [`keep ${asked.cgroupDir} out`, "let kubepods/pod-a/app in"]);
  await vf.release();
  assert.equal(done[0], "keep kubepods/pod-a/app out");
});
