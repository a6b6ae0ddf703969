// VFs whose links, PF and settings a test changes by hand, and what a journal may have of them.
import type { GrantState } from "../../src/access/index.ts";
import { Inventory } from "../../src/inventory/index.ts";
import type { Link, NetlinkEvent, Uevent } from "../../src/kernel/index.ts";
import type { KernelVfEntry, VfioVfEntry } from "../../src/mechanisms/index.ts";
import type { NotRestoredSetting, VfSettings } from "../../src/netdev/index.ts";
import { type PciAddress, parsePciAddress } from "../../src/pci/index.ts";

export const PF = parsePciAddress("01:00.0");
/** Every other function from 01:10.0 on, as the VFs of one port. */
export const addressOf = (index: number) =>
  parsePciAddress(`01:${(0x10 + (index >> 2)).toString(16)}.${(index & 3) * 2}`);
export const addresses = (count: number): readonly PciAddress[] =>
  Array.from({ length: count }, (_, at) => addressOf(at));
export const [first, second] = [addressOf(0), addressOf(1)];
/** The index of the first link that a driver makes. */
export const FIRST_MADE = 101;
/** Where it is among them. */
export const indexOf = (address: PciAddress) => addresses(32).indexOf(address);

/** One VF as the node has it. */
interface PaperVf {
  isPresent: boolean;
  /** Another one when it is made again. */
  instance: bigint;
  driver: string | undefined;
  /** In the host; undefined where it is not there. */
  link: Link | undefined;
  settings: VfSettings;
  /** An observation answers when this has come. */
  answering: Promise<unknown>;
  /** Its network device is found when this has come. */
  finding: Promise<unknown>;
  /** Its driver has let go of it and taken it again when this has come. */
  binding: Promise<unknown>;
  /** It is bound when this has come: another one of its IOMMU group may be first. A caller may leave before. */
  turn: Promise<unknown>;
  /** Its driver has made a link when this has come. */
  making: Promise<unknown>;
  /** A write that changes its driver was given up and has not returned. */
  hasStuckWrite?: boolean;
  /** What its driver calls a link; undefined: as udev does. */
  madeName?: string;
  /** Its PF answers with its settings when this has come. */
  reporting: Promise<unknown>;
  observations: number;
}

export const linkOf = (index: number): Link =>
  ({
    index,
    name: `enp1s0f0v${index - 7}`,
    altNames: [],
    up: false,
    mtu: 1500,
    address: `02:00:00:00:00:${index.toString(16).padStart(2, "0")}`,
  }) as unknown as Link;

const vfOf = (index: number): PaperVf => ({
  isPresent: true,
  instance: 1n,
  driver: "igbvf",
  link: linkOf(7 + index),
  settings: { mac: "00:00:00:00:00:00", vlan: 0 },
  answering: Promise.resolve(),
  finding: Promise.resolve(),
  binding: Promise.resolve(),
  turn: Promise.resolve(),
  making: Promise.resolve(),
  reporting: Promise.resolve(),
  observations: 0,
});

/** The entry of a VF that was out: `client` is what it is called there. */
export function kernelEntry(address: PciAddress, connectionId = "c1", client = "nsm-1"): KernelVfEntry {
  const { index, name, altNames, mtu, address: mac, up } = linkOf(7 + indexOf(address));
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

type Failure = "name" | "mtu" | "vlan" | "drop" | "glance" | "revoke" | "bind" | "deviceOf" | "presence" | "lookup";

/** What there is of the node, and what was done to it. */
export class World {
  readonly vfs: ReadonlyMap<PciAddress, PaperVf>;
  readonly done: string[] = [];
  readonly counts = { underWay: 0, mostUnderWay: 0, renewing: 0, mostRenewing: 0, sockets: 0, listeners: 0 };
  readonly failing = new Set<Failure>();
  /** Links that are not the VF's own. */
  readonly foreign = new Set<number>();
  /** What the host had set of a network device, and the new one does not take. */
  readonly remaining: NotRestoredSetting[] = [];
  /** VFs that a process has open. */
  readonly holders = new Set<PciAddress>();
  readonly inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  /** Links of the host that are no VF's. */
  readonly others: Link[] = [];
  #lastIndex = FIRST_MADE - 1;
  hear: (event: Uevent) => void = () => {};
  hearOfLink: (event: NetlinkEvent) => void = () => {};

  constructor(count: number) {
    this.vfs = new Map(addresses(count).map((address, index) => [address, vfOf(index)]));
  }

  vf(address: PciAddress = first): PaperVf {
    return this.vfs.get(address) as PaperVf;
  }

  at(index: number): PaperVf {
    return this.vf(addressOf(index));
  }

  /** As its driver does: with an index that no link had. */
  makeLink(address: PciAddress): void {
    const one = this.vf(address);
    this.#lastIndex += 1;
    const made = { ...linkOf(7 + indexOf(address)), index: this.#lastIndex };
    one.link = { ...made, ...(one.madeName && { name: one.madeName }) };
  }

  fail(what: Failure, error: string): void {
    if (this.failing.has(what)) throw new Error(error);
  }
}
