// A node whose one VF is the link of a world (namespaces.ts, memory-world.ts), given to clients in the namespaces of that.
import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { systemClock } from "../../src/async/index.ts";
import { type ConnectionContext, ConnectionContextSchema } from "../../src/gen/connectioncontext_pb.ts";
import { Inventory } from "../../src/inventory/index.ts";
import { KernelError } from "../../src/kernel/index.ts";
import { VfHolds } from "../../src/mechanisms/held-vf.ts";
import type { KernelVfEntry, VfEntry } from "../../src/mechanisms/journal-entries.ts";
import { kernelDriver } from "../../src/mechanisms/kernel/kernel-attachment.ts";
import type { PfPort, VfSettings } from "../../src/netdev/index.ts";
import type { Node } from "../../src/node/index.ts";
import { type DriverBinder, DriverError, type PciAddress, parsePciAddress } from "../../src/pci/index.ts";
import { restoreVf } from "../../src/reconcile/restore.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import type { Place, World as RealWorld } from "./namespaces.ts";
import { paperUnrestored } from "./paper-unrestored.ts";

/** On links of this machine, or in memory. */
type World = Pick<RealWorld, "host" | "pod" | "links" | "renew">;
type IpContext = { readonly policies?: { readonly from: string; readonly routes: { readonly prefix: string }[] }[] };

export const contextOf = (vlanTag: number, ip: IpContext = {}) =>
  create(ConnectionContextSchema, { ethernetContext: { vlanTag }, ipContext: { srcIpAddrs: ["10.0.0.1/24"], ...ip } });
export const context = contextOf(5);
export const address = parsePciAddress("01:10.0");

const pf = parsePciAddress("01:00.0");
const here = new AbortController().signal;

/** What a test may change of the node, and what was done. */
class AttachedNode {
  isPresent = true;
  driver = "igbvf";
  /** How the host uses the VF. */
  hostUse: string | undefined;
  bind = async (): Promise<void> => {};
  readonly done: string[] = [];
  /** Pods that are watched. */
  watched = 0;
  received = 0;
}

/** `left` is what the previous instance left of it. */
export function nodeOf(world: World, port: PfPort, left?: KernelVfEntry) {
  const node = new AttachedNode();
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const facts = { address, pf, index: 0, iommuGroup: undefined, numaNode: undefined, driver: "igbvf" };
  inventory.sync(pf, [{ ...facts, kernelDriver: "igbvf", resources: ["d/x"] }]);
  const vfs = new Map<PciAddress, VfEntry>(left && [[address, left]]);
  if (left) inventory.raise(address, { code: "pending-netns", ending: "not" });
  const kept: KernelVfEntry[] = [];
  const unrestored = paperUnrestored();
  const parts = {
    journal: {
      vfs,
      unrestored,
      keepVf: async (vf: VfEntry) => void (vf.use === "kernel" && kept.push(vf)),
      forgetVf() {},
    },
    inventory,
    binder: binderOf(world, node),
    links: world.links,
    pfDoor: () => ({ port, settings: {} }),
    async watchPod() {
      node.watched += 1;
      return () => {
        node.watched -= 1;
      };
    },
    clock: systemClock,
    log: silentLog,
  };
  const survey = { judge() {}, refusals: [] };
  const hostUse = {
    async refuse() {
      const how = node.hostUse;
      if (how !== undefined) throw new DriverError(address, { kind: "host-uses-it", how });
    },
  };
  const holds = new VfHolds({ ...parts, survey, hostUse, isLinkSound: async () => true });
  const tokenId = inventory.devicesOf("d/x")[0]?.id ?? "";
  const driver = kernelDriver({ ...parts, survey: { pfs: new Map() }, holds });
  /** For a client in that namespace. */
  const take = (place: Place = world.pod) => {
    const request = requestOf(tokenId, node);
    return handleOf(driver.adopt(request(place)), request, place);
  };
  /** What the reconciler does with a VF that its client has left. */
  const clean = async () => {
    const { state, connectionId } = kept.at(-1) ?? left ?? assert.fail("it was never out");
    const survey = { pfs: new Map() } as unknown as Node["survey"];
    const vf = inventory.get(address) ?? assert.fail("it is there");
    const cleaned = await restoreVf({ ...parts, node: { ...parts, survey } }, vf, { state, isNewNeeded: true });
    assert.deepEqual([cleaned?.left ?? [], connectionId], [[], "c1"]);
    inventory.clear(address, "being-cleaned");
  };
  return { node, inventory, kept, unrestored, take, clean };
}

/** One connection's part, as its calls come. */
function handleOf(
  attachment: ReturnType<ReturnType<typeof kernelDriver>["adopt"]>,
  request: ReturnType<typeof requestOf>,
  place: Place,
) {
  return {
    prepare: () => attachment.prepare(request(place)),
    apply: (requested: ConnectionContext = context, signal = here) =>
      attachment.apply({ ...request(place), signal }, requested),
    /** The client has come back in another namespace, or wants another name. */
    applyIn: (other: Place, name?: string) => attachment.apply(request(other, name), context),
    isInForce: (requested: ConnectionContext = context) => attachment.isInForce(requested, here),
    canServe: () => attachment.canServe(request(place).desired),
    receiveFiles: () => attachment.receiveFiles(request(place).files, here),
    release: () => attachment.release(),
    close: () => attachment.close(),
  };
}

function requestOf(tokenId: string, node: AttachedNode) {
  return ({ netns: { fd, id } }: Place, interfaceName = "nsm-1") => {
    const netns = { text: `inode://${id.dev}/${id.ino}`, ...id };
    const desired = { type: "KERNEL", tokenId, interfaceName, netns, bare: false } as const;
    const receive = async () => {
      node.received += 1;
      return fd.dup();
    };
    return { connectionId: "c1", desired, files: { receive }, signal: here };
  };
}

function binderOf(world: World, node: AttachedNode): DriverBinder {
  const netdevNow = async () => {
    const link = await world.host.rtnl.linkByName("vf0");
    return link && { ifname: "vf0", ifindex: link.index };
  };
  return {
    hasStuckWrite: () => false,
    async bind() {
      node.done.push("bind");
      await node.bind();
    },
    async renew() {
      node.done.push("renew");
      if (node.driver === "igbvf") await world.renew();
    },
    netdevOf: async () => (await netdevNow()) ?? assert.fail("the host has no link"),
    netdevNow,
    instanceOf: async () => 1n,
    driverOf: async () => node.driver,
    isPresent: async () => node.isPresent,
  } as unknown as DriverBinder;
}

/** Takes a VLAN and does not let go of it while `refuses`. */
export class StubbornPort implements PfPort {
  readonly pf = "0000:01:00.0 (enp1s0f0, driver igb)";
  settings: VfSettings = { vlan: 0 };
  refuses = true;
  readonly #onVlan: () => void;

  constructor(onVlan: () => void) {
    this.#onVlan = onVlan;
  }

  async read(): Promise<VfSettings> {
    return this.settings;
  }

  async write(_vf: number, change: VfSettings): Promise<void> {
    if (this.refuses && change.vlan === 0) throw new KernelError("set VLAN 0", 5, "the PF is broken");
    this.settings = { ...this.settings, ...change };
    if (change.vlan === 5) this.#onVlan();
  }
}
