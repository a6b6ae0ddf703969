// A node whose VFs pods get by VFIO, for tests only: what a process outside could see of it is written down in its order.
import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import type { DeviceAccess, GrantRequest, GrantState, RecordState } from "../../src/access/index.ts";
import { systemRandom } from "../../src/async/index.ts";
import { ConnectionContextSchema } from "../../src/gen/connectioncontext_pb.ts";
import { Inventory } from "../../src/inventory/index.ts";
import { VfHolds } from "../../src/mechanisms/held-vf.ts";
import type { VfEntry } from "../../src/mechanisms/journal-entries.ts";
import { vfioDriver } from "../../src/mechanisms/vfio/vfio-attachment.ts";
import { AdoptedGrants } from "../../src/mechanisms/vfio/vfio-entry.ts";
import type { HostLinks, PfPort, VfSettings } from "../../src/netdev/index.ts";
import type { Attachment, MechanismRequest } from "../../src/nsm/index.ts";
import { HandClock } from "../../src/nsm/testing/fakes.ts";
import { type DriverBinder, DriverError, type PciAddress, parsePciAddress } from "../../src/pci/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { paperUnrestored } from "./paper-unrestored.ts";

const pf = parsePciAddress("01:00.0");
export const [first, second] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.1")];
const { signal } = new AbortController();
export const UID = "0f3b7c1e-9d5a-4c61-8a3e-2b1f6d7e8c90";
export const requested = { mac: "02:00:00:00:00:01", vlan: 5, cgroupDir: "kubepods/pod-a/*" };

/** What a test may change of the node while a story runs. */
class Changeable {
  isPresent = true;
  /** Another one with each VF that is made in the place of the one before. */
  instance = 1n;
  /** Whether the containers can open what a grant gave them. */
  isInForce = true;
  /** Of the device nodes: another one with each binding. */
  minor = 7;
  /** A revocation ends when this has come. */
  revoking: Promise<void> = Promise.resolve();
  /** The containers are let in when this has come. */
  granting: Promise<void> = Promise.resolve();
  /** Containers that are not the pod's. */
  foreignCgroup: string | undefined;
  /** The kernel does not say who has a group open. */
  isUnreadable = false;
  readonly openGroups = new Set<PciAddress>();
  /** The pod of each grant that was opened, as far as it was known. */
  readonly grantedTo: (string | undefined)[] = [];
  /** Drivers that bind a VF only when this has come. */
  readonly slow = new Map<PciAddress, Promise<void>>();
  readonly settings = new Map<number, VfSettings>();
  readonly failing = new Set<keyof VfSettings>();
}

/** Two VFs of one IOMMU group. */
export function vfioNode() {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf, iommuGroup: 7, numaNode: undefined, kernelDriver: "igbvf", driver: undefined };
  inventory.sync(
    pf,
    [first, second].map((address, index) => ({ ...common, address, index, resources: ["d/x"] })),
  );
  const done: string[] = [];
  const node = new Changeable();
  const [clock, log] = [new HandClock(), silentLog];
  const [port, binder, access] = [portOf(node, done), binderOf(node, done), accessOf(node, done)];
  const { vfs, journal } = journalOf(done);
  const [hostUse, survey] = [{ refuse: async () => {} }, { judge() {}, refusals: [] }];
  const isLinkSound = async () => true;
  const holds = new VfHolds({ inventory, binder, journal, hostUse, survey, isLinkSound, clock, log });
  const grants = new AdoptedGrants();
  const pods = { podOf: async () => ({ uid: UID, container: "app" }) };
  const pfDoor = () => ({ port, settings: {} });
  const links = { settings: { boot: "this boot" } as HostLinks["settings"] };
  const around = { random: systemRandom, clock, log };
  const driver = vfioDriver({ ...around, links, holds, inventory, binder, access, pods, pfDoor, journal, grants });
  const tokenOf = (address: PciAddress) =>
    inventory.devicesOf("d/x").find((one) => one.address === address)?.id ?? assert.fail(address);
  const take = async (address: PciAddress, how: "open" | "adopt" = "open") => {
    const tokenId = tokenOf(address);
    const request = (cgroupDir: string) => {
      const files = { receive: () => assert.fail("VFIO takes no files") };
      return { connectionId: `of ${address}`, desired: { type: "VFIO", tokenId, cgroupDir } as const, files, signal };
    };
    return handleOf(await driver[how](request(requested.cgroupDir)), { tokenId, request });
  };
  const { openGroups, slow, settings, failing } = node;
  const changeable = { node, openGroups, slow, settings, failing };
  return { ...changeable, inventory, done, clock, vfs, journal, grants, access, tokenOf, take };
}

/** One connection's part, as its calls come. */
function handleOf(
  attachment: Attachment,
  { tokenId, request }: { readonly tokenId: string; readonly request: (cgroupDir: string) => MechanismRequest },
) {
  return {
    tokenId,
    canServe: attachment.canServe.bind(attachment),
    prepare: () => attachment.prepare(request(requested.cgroupDir)),
    apply: (cgroupDir = requested.cgroupDir) => attachment.apply(request(cgroupDir), contextOf(requested.vlan)),
    isInForce: (vlan = requested.vlan) => attachment.isInForce(contextOf(vlan), signal),
    release: () => attachment.release(),
    close: () => attachment.close(),
    get address() {
      return attachment.parameters["pciAddress"];
    },
  };
}

function binderOf(node: Changeable, done: string[]): DriverBinder {
  return {
    async bind({ address }: { readonly address: PciAddress }) {
      done.push(`bind ${address}`);
      await node.slow.get(address);
    },
    isPresent: async () => node.isPresent,
    instanceOf: async () => (node.isPresent ? node.instance : undefined),
    vfio: {
      async deviceOf() {
        return { group: 7, container: { major: 10, minor: 196 }, device: { major: 245, minor: node.minor } };
      },
      async refuseOpen(address: PciAddress) {
        done.push(`look who has ${address} open`);
        if (node.isUnreadable) throw new Error("the kernel does not say");
        if (node.openGroups.has(address))
          throw new DriverError(address, { kind: "group-open", group: 7, processes: [] });
      },
    },
  } as unknown as DriverBinder;
}

function journalOf(done: string[]) {
  const vfs = new Map<PciAddress, VfEntry>();
  const writing = { ends: Promise.resolve() };
  const journal = {
    vfs,
    unrestored: paperUnrestored(),
    writing,
    async keepVf(entry: VfEntry) {
      await writing.ends;
      vfs.set(entry.address, entry);
    },
    forgetVf(address: PciAddress) {
      done.push(`forget ${address}`);
      vfs.delete(address);
    },
  };
  return { vfs, journal };
}

function contextOf(vlanTag: number) {
  return create(ConnectionContextSchema, { ethernetContext: { srcMac: requested.mac, vlanTag } });
}

function portOf({ settings, failing }: Changeable, done: string[]): PfPort {
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
  return port;
}

function accessOf(node: Changeable, done: string[]): DeviceAccess {
  const grantOf = (name: string, state: GrantState, record: RecordState) => ({
    state,
    async apply() {
      await record(state);
      await node.granting;
      done.push(`let ${name} in`);
    },
    isInForce: async () => node.isInForce,
    async revoke() {
      await node.revoking;
      done.push(`keep ${name} out`);
    },
    letGo: () => void done.push(`let go of ${name}`),
  });
  return {
    open({ cgroupDir, devices, connectionId, record, pod }: GrantRequest) {
      if (cgroupDir === node.foreignCgroup) throw new Error(`${cgroupDir} is not the pod's`);
      node.grantedTo.push(pod?.uid);
      return grantOf(cgroupDir, { connectionId, podUid: UID, containers: "*", devices, wrote: [] }, record);
    },
    adopt: (state: GrantState, record: RecordState) => grantOf(`pod ${state.podUid}`, state, record),
  } as unknown as DeviceAccess;
}
