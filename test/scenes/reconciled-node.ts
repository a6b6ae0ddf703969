// A node that is reconciled: two VFs whose links, PF and journal a test changes by hand. What is done to it is written down.
import type { DeviceAccess, GrantState } from "../../src/access/index.ts";
import { systemRandom } from "../../src/async/index.ts";
import {
  KernelError,
  type Link,
  type NetlinkEvent,
  Netns,
  type Rtnl,
  type SetLink,
  type Uevent,
} from "../../src/kernel/index.ts";
import { AdoptedGrants, type VfEntry } from "../../src/mechanisms/index.ts";
import type { StoredEntry } from "../../src/mechanisms/journal-entries.ts";
import { HostLinks, type PfPort } from "../../src/netdev/index.ts";
import type { JournalEntry } from "../../src/nsm/index.ts";
import { HandClock, settled } from "../../src/nsm/testing/fakes.ts";
import { DriverError, type PciAddress } from "../../src/pci/index.ts";
import { Reconciler, type ReconcilerOptions } from "../../src/reconcile/reconcile.ts";
import { createMetrics } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { paperUnrestored } from "./paper-unrestored.ts";
import { addresses, first, PF, World } from "./paper-vfs.ts";

export { addresses, FIRST_MADE, first, kernelEntry, second, vfioEntry } from "./paper-vfs.ts";

export const INTERVAL_MS = 5_000;
export const BOOT = "6ba7b810-9dad-11d1-80b4-00c04fd430c9";

/**
 * The node, with two VFs if nothing else is said, and a Reconciler of it, which is yet to be started. The disk has what a previous
 * instance could not restore.
 */
export function reconciledNode(count = 2, disk = new Map<string, StoredEntry>()) {
  const world = new World(count);
  const { inventory, done, counts } = world;
  const common = { pf: PF, iommuGroup: undefined, numaNode: undefined, driver: "igbvf", kernelDriver: "igbvf" };
  const facts = addresses(count).map((address, index) => ({ ...common, address, index, resources: ["d/x"] }));
  inventory.sync(PF, facts);
  const [clock, log, metrics] = [new HandClock(), recordingLog(), createMetrics()];
  const [journal, port, grants] = [journalOf(world, disk), portOf(world), new AdoptedGrants()];
  const survey = { pfs: new Map([[PF, { ifname: "enp1s0f0" }]]) };
  const node = { inventory, binder: binderOf(world), survey, pfDoor: () => ({ port, settings: {} }) };
  const reconciler = new Reconciler({
    node,
    journal,
    access: accessOf(world),
    grants,
    pods: { podsWith: async () => new Set<string>(), read: async () => undefined },
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
  const { failing, foreign, holders, others, remaining, vf } = world;
  const parts = {
    inventory,
    done,
    counts,
    failing,
    foreign,
    holders,
    others,
    remaining,
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
    sayOfLink: (event: NetlinkEvent) => world.hearOfLink(event),
    say(event: Partial<Uevent>) {
      world.hear({ action: "change", subsystem: "net", devpath: "", fields: {}, ...event });
    },
    of: (address: PciAddress) => `/devices/pci0000:00/0000:00:01.0/${address}`,
  };
}

function journalOf(world: World, disk: Map<string, StoredEntry>) {
  const { done } = world;
  const vfs = new Map<PciAddress, VfEntry>();
  const left = new Map<string, JournalEntry>();
  return {
    vfs,
    left,
    unrestored: paperUnrestored(disk),
    keepVf: async () => {},
    async drop(id: string) {
      left.delete(id);
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
      one.observations += 1;
      // A reconciler that goes round and round would keep the process: its test fails by what it expects.
      if (one.observations > 1_000) throw new Error(`VF ${address} is observed without end`);
      counts.underWay += 1;
      counts.mostUnderWay = Math.max(counts.underWay, counts.mostUnderWay);
      await one.answering;
      counts.underWay -= 1;
      world.fail("glance", "it cannot be read");
      const { isPresent, driver, link } = one;
      return { isPresent, driver, iommuGroup: undefined, hasNetdev: link !== undefined };
    },
    async netdevNow(address: PciAddress) {
      await world.vf(address).finding;
      const { link } = world.vf(address);
      return link && { ifname: link.name, ifindex: link.index };
    },
    /** The driver makes a link as a driver does, whatever became of the one before. */
    async renew({ address }: { readonly address: PciAddress }, signal?: AbortSignal) {
      const one = world.vf(address);
      if (one.driver !== undefined && one.driver !== "igbvf") return;
      done.push(`renew ${address}`);
      counts.renewing += 1;
      counts.mostRenewing = Math.max(counts.renewing, counts.mostRenewing);
      await unlessAborted(one.binding, signal).finally(() => {
        counts.renewing -= 1;
      });
      world.fail("bind", "the driver refuses");
      one.driver = "igbvf";
      inventory.setDriver(address, "igbvf");
      world.makeLink(address);
    },
    async netdevOf(address: PciAddress, signal?: AbortSignal) {
      const { link, making } = world.vf(address);
      await unlessAborted(making, signal);
      if (!link) throw new DriverError(address, { kind: "no-netdev" });
      return { ifname: link.name, ifindex: link.index };
    },
    async isPresent(address: PciAddress) {
      world.fail("presence", "it cannot be read");
      return world.vfs.get(address)?.isPresent ?? false;
    },
    instanceOf: async (address: PciAddress) => (world.vf(address).isPresent ? world.vf(address).instance : undefined),
    isChanging: () => false,
    hasStuckWrite: (address: PciAddress) => world.vf(address).hasStuckWrite ?? false,
    driverOf: async (address: PciAddress) => world.vf(address).driver,
    async bind({ address }: { readonly address: PciAddress }, use: string, signal?: AbortSignal) {
      await unlessAborted(world.vf(address).turn, signal);
      done.push(`bind ${address} ${use}`);
      world.fail("bind", "the driver refuses");
      world.vf(address).driver = "igbvf";
      inventory.setDriver(address, "igbvf");
    },
    vfio: vfioOf(world),
  };
}

async function unlessAborted(work: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  signal?.addEventListener("abort", () => aborted.reject(signal.reason));
  await Promise.race([work, aborted.promise]);
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
      await one.reporting;
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
  const { remaining } = world;
  const linkSettings = { boot: BOOT, read: async () => ({}), restore: async () => ({ restored: [], remaining }) };
  const outside = { linkOwnerOf, netnsOf: Netns.fromFd, random: systemRandom, linkSettings };
  return new HostLinks({ netns: {} as Netns, openRtnl: () => rtnlOf(world), ...outside }, clock);
}

function ownerOf({ vfs, foreign }: World, link: Link) {
  const owner = [...vfs].find(([, one]) => one.link?.index === link.index)?.[0];
  return { pciFunction: foreign.has(link.index) ? "0000:07:00.0" : owner, text: "PCI function 0000:07:00.0" };
}

/** A socket of the host's namespace, where the links of VFs are. */
function rtnlOf(world: World): Rtnl {
  const { vfs, others, done, counts } = world;
  counts.sockets += 1;
  const links = () => [...others, ...[...vfs.values()].flatMap(({ link }) => link ?? [])];
  return {
    counts: { writes: 0 },
    links: async () => links(),
    linkByIndex: async (index: number) => links().find((link) => link.index === index),
    async linkByName(name: string) {
      world.fail("lookup", "it cannot be looked up");
      return links().find((link) => link.name === name);
    },
    async setLink(index: number, { addAltNames: _none, ...change }: SetLink) {
      done.push(`set ${Object.keys(change)}`);
      for (const what of ["name", "mtu"] as const) if (change[what]) world.fail(what, `no such ${what}`);
      const isTaken = links().some((one) => one.name === change.name && one.index !== index);
      if (isTaken) throw new KernelError(`set name of link ${index}`, 17, "the name is taken");
      for (const one of vfs.values()) {
        if (one.link?.index === index) one.link = { ...one.link, ...change } as Link;
      }
    },
    watch(_groups: readonly string[], listener: typeof world.hearOfLink) {
      counts.listeners += 1;
      world.hearOfLink = listener;
      return () => {
        counts.listeners -= 1;
        world.hearOfLink = () => {};
      };
    },
    close() {
      counts.sockets -= 1;
    },
  } as unknown as Rtnl;
}
