// A node that is reconciled: two VFs whose links, PF and journal a test changes by hand. What is done to it is written down.
import type { DeviceAccess, GrantState } from "../../src/access/index.ts";
import { systemRandom } from "../../src/async/index.ts";
import { Inventory } from "../../src/inventory/index.ts";
import { type Link, Netns, type Rtnl, type SetLink, type Uevent } from "../../src/kernel/index.ts";
import { AdoptedGrants, type KernelVfEntry, type VfEntry, type VfioVfEntry } from "../../src/mechanisms/index.ts";
import { HostLinks, type PfPort, type VfSettings } from "../../src/netdev/index.ts";
import type { JournalEntry } from "../../src/nsm/index.ts";
import { HandClock, settled } from "../../src/nsm/testing/fakes.ts";
import { DriverError, type PciAddress, parsePciAddress } from "../../src/pci/index.ts";
import { Reconciler, type ReconcilerOptions } from "../../src/reconcile/reconcile.ts";
import { createMetrics } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";

const PF = parsePciAddress("01:00.0");
export const [first, second] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.2")];
export const INTERVAL_MS = 5_000;

/** One VF as the node has it. */
interface PaperVf {
  isPresent: boolean;
  driver: string | undefined;
  /** In the host; undefined where it is not there. */
  link: Link | undefined;
  settings: VfSettings;
  /** An observation answers when this has come. */
  answering: Promise<unknown>;
  /** Its PF answers with its settings when this has come. */
  telling: Promise<unknown>;
  looks: number;
}

const linkOf = (index: number): Link =>
  ({
    index,
    name: `enp1s0f0v${index - 7}`,
    altNames: [],
    up: false,
    mtu: 1500,
    address: `02:00:00:00:00:0${index}`,
  }) as unknown as Link;

const vfOf = (index: number): PaperVf => ({
  isPresent: true,
  driver: "igbvf",
  link: linkOf(7 + index),
  settings: { mac: "00:00:00:00:00:00", vlan: 0 },
  answering: Promise.resolve(),
  telling: Promise.resolve(),
  looks: 0,
});

/** The entry of a VF that was out: `client` is what it is called there. */
export function kernelEntry(address: PciAddress, connectionId = "c1", client = "nsm-1"): KernelVfEntry {
  const { index, name, altNames, mtu, address: mac, up } = linkOf(address === first ? 7 : 8);
  return {
    use: "kernel",
    address,
    connectionId,
    tokenId: "t",
    netns: "4/40",
    state: {
      original: { index, name, altNames, mtu, address: mac, up, parentDevice: undefined },
      temporaryName: "nsm-0102030405",
      name: client,
      clientIndex: 3,
      owned: { addresses: [], tables: [], mtu: false },
      vfBefore: { mac: "00:00:00:00:00:00", vlan: 0 },
    },
  };
}

/** The entry of a VF that a pod may open. */
export function vfioEntry(address: PciAddress, connectionId = "c1"): VfioVfEntry {
  const devices = [{ major: 245, minor: 0 }];
  const grant: GrantState = { connectionId, podUid: "uid-1", containers: "*", devices, wrote: [] };
  return {
    use: "vfio",
    address,
    connectionId,
    tokenId: "t",
    owner: "uid-1",
    grant,
    before: { mac: "00:00:00:00:00:00", vlan: 0 },
  };
}

type Failure = "vlan" | "drop" | "glance" | "revoke" | "bind" | "deviceOf" | "presence";

/** What there is of the node, and what was done to it. */
class World {
  readonly vfs = new Map<PciAddress, PaperVf>([first, second].map((address, index) => [address, vfOf(index)]));
  readonly done: string[] = [];
  readonly counts = { underWay: 0, mostUnderWay: 0, sockets: 0, listeners: 0 };
  readonly failing = new Set<Failure>();
  /** Links that are not the VF's own. */
  readonly foreign = new Set<number>();
  /** VFs that a process has open. */
  readonly holders = new Set<PciAddress>();
  readonly inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  hear: (event: Uevent) => void = () => {};

  vf(address: PciAddress = first): PaperVf {
    return this.vfs.get(address) as PaperVf;
  }

  at(index: number): PaperVf {
    return this.vf(index === 0 ? first : second);
  }

  fail(what: Failure, error: string): void {
    if (this.failing.has(what)) throw new Error(error);
  }
}

/** The node and a Reconciler of it, which is yet to be started. */
export function reconciledNode() {
  const world = new World();
  const { inventory, done, counts } = world;
  const common = { pf: PF, iommuGroup: undefined, numaNode: undefined, driver: "igbvf", kernelDriver: "igbvf" };
  const facts = [first, second].map((address, index) => ({ ...common, address, index, resources: ["d/x"] }));
  inventory.sync(PF, facts);
  const [clock, log, metrics] = [new HandClock(), recordingLog(), createMetrics()];
  const [journal, port, grants] = [journalOf(world), portOf(world), new AdoptedGrants()];
  const survey = { pfs: new Map([[PF, { ifname: "enp1s0f0" }]]) };
  const node = { inventory, binder: binderOf(world), survey, pfDoor: () => ({ port, settings: {} }) };
  const reconciler = new Reconciler({
    node,
    journal,
    access: accessOf(world),
    grants,
    pods: { podsWith: async () => new Set<string>() },
    links: linksOf(world, clock),
    uevents: {
      subscribe(listener: typeof world.hear) {
        counts.listeners += 1;
        world.hear = listener;
        return () => {
          counts.listeners -= 1;
          world.hear = () => {};
        };
      },
    },
    intervalMs: INTERVAL_MS,
    metrics,
    clock,
    log,
  } as unknown as ReconcilerOptions);
  const { failing, foreign, holders, vf } = world;
  const parts = {
    inventory,
    done,
    counts,
    failing,
    foreign,
    holders,
    clock,
    log,
    metrics,
    journal,
    grants,
    reconciler,
  };
  const resync = () => inventory.sync(PF, facts);
  return { ...parts, ...actsOn(world, reconciler), vf: vf.bind(world), resync, lose: () => inventory.sync(PF, []) };
}

/** What a test does to the node, and sees of it. */
function actsOn(world: World, reconciler: Reconciler) {
  const { inventory, done } = world;
  const running = {
    ending: Promise.resolve(),
    rescan: () => void done.push("rescan"),
    async endConnection(id: string) {
      done.push(`end ${id}`);
      await running.ending;
    },
    adopt: ({ connectionId, stage }: JournalEntry) => void done.push(`continue ${connectionId} ${stage}`),
  };
  const tokenOf = (address: PciAddress) => inventory.devicesOf("d/x").find((one) => one.address === address)?.id ?? "";
  return {
    running,
    tokenOf,
    /** Starts and follows; the first pass is over on return. */
    async follow() {
      const continued = await reconciler.start();
      const stop = reconciler.follow(running);
      await settled();
      return { continued, stop };
    },
    /** A connection gets it and is established. */
    give(address: PciAddress, connectionId: string) {
      inventory.take({ connectionId, tokenId: tokenOf(address), use: "kernel" });
      inventory.setState(connectionId, "ready");
    },
    codes: (address: PciAddress = first) => inventory.get(address)?.conditions.map(({ code }) => code) ?? [],
    stateOf: (address: PciAddress = first) => inventory.get(address)?.state,
    connection(connectionId: string, tokenId = "t"): JournalEntry {
      const owner = { spiffeId: "spiffe://d/manager", isManager: true };
      return { connectionId, owner, stage: "ready", mechanism: "KERNEL", tokenId, connection: Buffer.of(1) };
    },
    say(event: Partial<Uevent>) {
      world.hear({ action: "change", subsystem: "net", devpath: "", fields: {}, ...event });
    },
    of: (address: PciAddress) => `/devices/pci0000:00/0000:00:01.0/${address}`,
  };
}

function journalOf(world: World) {
  const { done } = world;
  const vfs = new Map<PciAddress, VfEntry>();
  return {
    vfs,
    left: new Map<string, JournalEntry>(),
    keepVf: async () => {},
    async drop(id: string) {
      done.push(`drop ${id}`);
      world.fail("drop", "the disk is full");
    },
    forgetVf(address: PciAddress) {
      done.push(`forget ${address}`);
      vfs.delete(address);
    },
  };
}

function binderOf(world: World) {
  const { counts, done, inventory } = world;
  return {
    async observeVf(address: PciAddress) {
      const one = world.vf(address);
      one.looks += 1;
      counts.underWay += 1;
      counts.mostUnderWay = Math.max(counts.underWay, counts.mostUnderWay);
      await one.answering;
      counts.underWay -= 1;
      world.fail("glance", "it cannot be read");
      const { isPresent, driver, link } = one;
      return { isPresent, driver, iommuGroup: undefined, hasNetdev: link !== undefined };
    },
    async netdevNow(address: PciAddress) {
      const { link } = world.vf(address);
      return link && { ifname: link.name, ifindex: link.index };
    },
    async isPresent(address: PciAddress) {
      world.fail("presence", "it cannot be read");
      return world.vfs.get(address)?.isPresent ?? false;
    },
    driverOf: async (address: PciAddress) => world.vf(address).driver,
    async bind({ address }: { readonly address: PciAddress }, use: string) {
      done.push(`bind ${address} ${use}`);
      world.fail("bind", "the driver refuses");
      world.vf(address).driver = "igbvf";
      inventory.setDriver(address, "igbvf");
    },
    vfio: vfioOf(world),
  };
}

function vfioOf(world: World) {
  return {
    async deviceOf(address: PciAddress) {
      world.fail("deviceOf", "it has no node");
      const minor = address === first ? 0 : 1;
      return { group: 1, container: { major: 10, minor: 196 }, device: { major: 245, minor } };
    },
    async refuseOpen(address: PciAddress) {
      world.done.push(`who has ${address} open`);
      if (world.holders.has(address)) throw new DriverError(address, { kind: "group-open", group: 1, processes: [] });
    },
  };
}

function portOf(world: World): PfPort {
  return {
    pf: "0000:01:00.0 (enp1s0f0, driver igb)",
    async read(index) {
      const one = world.at(index);
      await one.telling;
      return one.settings;
    },
    async write(index, change) {
      if (change.vlan !== undefined) world.fail("vlan", "the PF refuses the VLAN");
      const one = world.at(index);
      one.settings = { ...one.settings, ...change };
    },
  };
}

function accessOf(world: World): DeviceAccess {
  const { done } = world;
  return {
    adopt({ podUid }: GrantState) {
      done.push(`adopt ${podUid}`);
      return {
        async revoke() {
          world.fail("revoke", "another program holds its filter");
          done.push(`revoke ${podUid}`);
        },
      };
    },
    async clearStrays(devices: readonly { readonly minor: number }[]) {
      done.push(`strays of ${devices.map(({ minor }) => minor)}`);
      return [];
    },
  } as unknown as DeviceAccess;
}

function linksOf(world: World, clock: HandClock): HostLinks {
  const linkOwnerOf = async (_place: unknown, link: Link) => ownerOf(world, link);
  const outside = { linkOwnerOf, netnsOf: Netns.fromFd, random: systemRandom };
  return new HostLinks({ netns: {} as Netns, openRtnl: () => rtnlOf(world), ...outside }, clock);
}

function ownerOf({ vfs, foreign }: World, link: Link) {
  const owner = [...vfs].find(([, one]) => one.link?.index === link.index)?.[0];
  return { pciFunction: foreign.has(link.index) ? "0000:07:00.0" : owner, text: "PCI function 0000:07:00.0" };
}

/** A socket of the host's namespace, where the links of VFs are. */
function rtnlOf({ vfs, done, counts }: World): Rtnl {
  counts.sockets += 1;
  const links = () => [...vfs.values()].flatMap(({ link }) => link ?? []);
  return {
    counts: { writes: 0 },
    links: async () => links(),
    linkByIndex: async (index: number) => links().find((link) => link.index === index),
    linkByName: async (name: string) => links().find((link) => link.name === name),
    async setLink(index: number, { addAltNames: _none, ...change }: SetLink) {
      done.push(`set ${Object.keys(change)}`);
      for (const one of vfs.values()) if (one.link?.index === index) one.link = { ...one.link, ...change } as Link;
    },
    watch: () => () => {},
    close() {
      counts.sockets -= 1;
    },
  } as unknown as Rtnl;
}
