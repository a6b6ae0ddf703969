import { setImmediate } from "node:timers/promises";
import { type Clock, systemClock } from "../../src/async/index.ts";
import {
  type DeviceNumber,
  Errno,
  type HostFiles,
  KernelError,
  type Link,
  type LinkOwner,
  type LinkPlace,
  type Netns,
  type Rtnl,
  type Uevent,
  type UeventSource,
} from "../../src/kernel/index.ts";
import { type Host, type HostLocks, machineDoors } from "../../src/node/index.ts";
import { type FindPfLink, pfLinks } from "../../src/pci/index.ts";
import { type Cable, Wire } from "../network/wire.ts";
import type { CardKind, EswitchMode } from "../nic/card.ts";
import { type Card, type CardOptions, cardOf } from "../nic/card-behaviour.ts";
import { busesOf, devpathOf, type IommuLayout, Nic, type NicFunction, type NicPf } from "../nic/nic.ts";
import type { PfLocks } from "../nic/pf-locks.ts";
import { PretendPfPort } from "../nic/pf-port.ts";
import {
  devicesTree,
  driversTree,
  type LinkMaker,
  type LinksParts,
  type NetdevView,
  type VfioStandIns,
  vfioDevice,
  vfioTree,
} from "../nic/sysfs.ts";
import { Faults, type Tree } from "./faults.ts";
import { type Entry, pretendFiles } from "./pretend-files.ts";
import { type KernelOptions, openKernel } from "./pretend-kernel.ts";

/** What the pretend node shall be like. */
export interface MachineOptions extends KernelOptions {
  /** Physical functions: 2 by default. */
  readonly pfs?: number;
  /** The most virtual functions of each, up to 256: 8 by default. */
  readonly vfsPerPf?: number;
  /** How many of them there are at the start: all by default. */
  readonly numVfs?: number;
  /** Hands an event over after those before it; in the next turn of the event loop by default. */
  readonly notifyLater?: (notify: () => void) => void;
  /** "per-vf" by default. */
  readonly iommu?: IommuLayout;
  /** The driver of the physical functions; that of the virtual ones has "vf" behind it. "igb" by default. */
  readonly pfDriver?: string;
  /** How the card and its drivers behave; "igb" by default. */
  readonly card?: CardOptions;
  /** From the bind to the network device, for drivers that ask the physical function first: 0 by default. */
  readonly netdevDelayMs?: number;
  /** In place of a time: asked at each bind, whose network device comes when this resolves. */
  readonly netdevsWait?: () => Promise<void> | undefined;
  /** How many times slower than a kernel the machine may be: writes that hang are given up so much later. 1 by default. */
  readonly slowness?: number;
  /** Devices that processes can open in place of VFIO's; numbers that no device has by default. */
  readonly vfioStandIns?: VfioStandIns;
  readonly clock?: Clock;
}

/** A pretend node with SR-IOV adapters: what the forwarder touches of a host, and what a test wants to do to it. */
export interface Machine extends Pick<Host, keyof ReturnType<typeof machineDoors>> {
  readonly devices: HostFiles;
  readonly drivers: HostFiles;
  readonly vfio: HostFiles;
  readonly uevents: UeventSource;
  readonly netns: Netns;
  readonly card: CardKind;
  /** Addresses of its physical functions. */
  readonly pfs: readonly string[];
  /** What devlink says of a physical function. */
  queryEswitchMode(pf: string): Promise<EswitchMode | undefined>;
  /** As `devlink dev eswitch set` does: representors of its virtual functions come and go. */
  setEswitchMode(pf: string, mode: EswitchMode): void;
  /** A socket in that namespace, whose links answer as the card's driver does. */
  openRtnl(netns: Netns): Rtnl;
  /** Whether its network devices are links, and not only names. */
  readonly hasLinks: boolean;
  /** Which PCI function has a link: known of those that the machine made, wherever they are now. */
  linkOwnerOf(place: Pick<LinkPlace, "netns">, link: Link): Promise<LinkOwner>;
  /** None where its network devices are only names. */
  readonly pfLink: FindPfLink;
  readonly locks: HostLocks;
  /** A real folder with one for each adapter, which stand for those in sysfs where locks are concerned. */
  readonly lockFolder: string;
  pfPort(pf: { readonly address: string }): PretendPfPort;
  readonly faults: Faults;
  /** Of a card whose PF resets its VFs. */
  readonly resets: Card["resets"];
  /** A configuration file for its adapters: capabilities intel and 10G in service domain worker.domain. */
  readonly configText: string;
  /**
   * Opens a VFIO group as a pod's process does; close by the function it gives back.
   * @throws {KernelError} ENODEV, EBUSY, EPERM.
   */
  openGroup(group: number): () => void;
  /** Number of the device of a PCI function's VFIO group, if it has one now. */
  vfioDeviceOf(address: string): DeviceNumber | undefined;
  /** Connects a device outside the node to the adapters' wire. @throws without real links. */
  connect(cable: Cable): Promise<void>;
  /** Takes an adapter out of its slot. The function it gives back puts it in again. */
  removePf(address: string): Promise<() => Promise<void>>;
  /** Takes a PCI function out of its IOMMU group, of which the kernel sends no event. */
  loseGroup(address: string): void;
  /** Says something as the kernel does. */
  announce(event: Uevent): void;
  /** Every PCI function with its driver, group, network device, MAC and VLAN, as a table. */
  print(): Promise<string>;
  /** Lets go of every link and namespace it made. */
  stop(): Promise<void>;
}

/** Starts the machine; physical functions are bound and up, virtual ones bound by the kernel's own probing. */
export async function startMachine(options: MachineOptions = {}): Promise<Machine> {
  const { pfs = 2, vfsPerPf = 8, numVfs = vfsPerPf, pfDriver = "igb", clock = systemClock, slowness = 1 } = options;
  const faults = new Faults();
  const events = new Events(faults, options.notifyLater);
  const ports = new Map<string, PretendPfPort>();
  const { netdevs, netns, openRtnl, locks: pfLocks, close } = await openKernel(options, linksPartsOf(ports, events));
  const delayMs = options.netdevDelayMs ?? 0;
  const nic = new Nic([pfDriver, `${pfDriver}vf`, "vfio-pci"], {
    netdevs,
    emit: (event) => events.emit(event),
    iommu: options.iommu ?? "per-vf",
    netdevDelay: options.netdevsWait ?? (() => (delayMs > 0 ? clock.sleep(delayMs) : undefined)),
  });
  const card = cardOf(options.card ?? { kind: "igb" }, { nic, netdevs, openRtnl, ...addressesOf(ports), clock });
  for (let index = 0; index < pfs; index++) {
    const bus = 1 + index * busesOf(vfsPerPf);
    const pf = nic.addPf({ bus, numaNode: index, totalVfs: vfsPerPf, nativeDriver: pfDriver });
    pfLocks.add(pf.address);
    pf.eswitchMode = card.eswitchMode;
    ports.set(pf.address, new PretendPfPort(pf, onVlanOf(pf, netdevs), card.portOf(pf)));
    await nic.bind(pfDriver, pf.address);
    await nic.setNumVfs(pf, numVfs);
  }
  const files = (tree: Tree, root: Entry) =>
    pretendFiles(root, { clock, slowness, before: (path, text) => faults.beforeWrite(tree, path, text) });
  const devices = files("devices", devicesTree(nic, netdevs));
  return {
    devices,
    ...answersAbout(netdevs, devices),
    drivers: files("drivers", driversTree(nic)),
    vfio: files("vfio", vfioTree(nic, options.vfioStandIns)),
    uevents: events,
    netns,
    ...answersOf(nic, card),
    pfs: [...ports.keys()],
    locks: pfLocks.locks,
    ...machineDoors(netns),
    lockFolder: pfLocks.folder,
    faults,
    configText: configOf(nic),
    pfPort: ({ address }) => portOf(ports, address),
    async connect(cable) {
      if (!(netdevs instanceof Wire)) throw new Error("Cannot connect a cable: the machine has no real links");
      await netdevs.connect(cable);
    },
    openGroup: (group) => nic.openGroup(group),
    vfioDeviceOf: (address) => vfioDevice(nic, options.vfioStandIns, nic.functions.get(address)?.iommuGroup ?? -1),
    removePf: (address) => removePf(nic, pfLocks, address),
    loseGroup: (address) => nic.loseGroup(address),
    announce: (event) => events.emit(event),
    print: () => print(nic, { netdevs, ports }),
    async stop() {
      await card.resets?.stop();
      events.close();
      await close();
      pfLocks.close();
    },
  };
}

/** A VLAN is a bridge of the wire. */
function onVlanOf(pf: { readonly vfs: readonly NicFunction[] }, netdevs: LinkMaker) {
  return async (vf: number, vlan: number) => {
    const fn = pf.vfs[vf];
    if (fn && netdevs instanceof Wire) await netdevs.setVlan(fn, vlan);
  };
}

async function removePf(nic: Nic, pfLocks: PfLocks, address: string): Promise<() => Promise<void>> {
  const pf = await nic.unplugPf(address);
  pfLocks.remove(address);
  return async () => {
    pfLocks.add(address);
    await nic.plugPf(pf);
  };
}

function answersAbout(netdevs: LinkMaker, devices: HostFiles): Pick<Machine, "hasLinks" | "linkOwnerOf" | "pfLink"> {
  const { hasLinks } = netdevs;
  const linkOwnerOf: Machine["linkOwnerOf"] = ({ netns }, link) => netdevs.ownerOf(netns, link);
  return { hasLinks, linkOwnerOf, pfLink: hasLinks ? pfLinks({ devices, linkOwnerOf }) : async () => undefined };
}

function answersOf(
  nic: Nic,
  card: Card,
): Pick<Machine, "card" | "queryEswitchMode" | "setEswitchMode" | "openRtnl" | "resets"> {
  return {
    card: card.kind,
    queryEswitchMode: async (address) => pfOf(nic, address).eswitchMode,
    setEswitchMode: (address, mode) => nic.setEswitchMode(pfOf(nic, address), mode),
    openRtnl: (place) => card.openRtnl(place),
    resets: card.resets,
  };
}

function pfOf(nic: Nic, address: string): NicPf {
  const pf = nic.pfs.find((one) => one.address === address);
  if (!pf) throw new KernelError(`find ${address}`, Errno.ENODEV);
  return pf;
}

type Ports = ReadonlyMap<string, PretendPfPort>;

/** Whose word an address of a PCI function is. */
function addressesOf(ports: Ports) {
  return {
    macOf: ({ virtual }: NicFunction) => virtual && portOf(ports, virtual.pf.address).adminMac(virtual.index),
    choose: (fn: NicFunction | undefined, mac: string) =>
      fn?.virtual && portOf(ports, fn.virtual.pf.address).choose(fn.virtual.index, mac),
  };
}

/** What the card's PCI functions and its links have to say to each other. */
function linksPartsOf(ports: Ports, events: Events): LinksParts {
  const { macOf, choose: onMade } = addressesOf(ports);
  return {
    vlanOf: ({ virtual }) => (virtual ? portOf(ports, virtual.pf.address).vlan(virtual.index) : 0),
    macOf,
    onMade,
    onReturn: (fn, ifname) => events.announceNetdev(fn, ifname),
  };
}

function portOf(ports: Ports, address: string): PretendPfPort {
  const port = ports.get(address);
  if (!port) throw new Error(`Cannot find a physical function ${address} in the machine`);
  return port;
}

function nextTurn(notify: () => void): void {
  void setImmediate().then(notify);
}

/** The kernel's announcements. They arrive after the write that caused them has returned or while it waits, as over a socket. */
class Events implements UeventSource {
  readonly #listeners = new Set<(event: Uevent) => void>();
  readonly #faults: Faults;

  readonly #notifyLater: (notify: () => void) => void;

  constructor(faults: Faults, notifyLater: (notify: () => void) => void = nextTurn) {
    this.#faults = faults;
    this.#notifyLater = notifyLater;
  }

  subscribe(listener: (event: Uevent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(event: Uevent): void {
    if (this.#faults.isLost(event)) return;
    // Who subscribes later has not heard it; one that has left by then is not notified.
    const listeners = [...this.#listeners];
    this.#notifyLater(() => {
      for (const listener of listeners) if (this.#listeners.has(listener)) listener(event);
    });
  }

  announceNetdev(fn: NicFunction, ifname: string): void {
    const devpath = `${devpathOf(fn)}/net/${ifname}`;
    this.emit({ action: "add", subsystem: "net", devpath, fields: { INTERFACE: ifname } });
  }

  close(): void {
    this.#listeners.clear();
  }
}

function configOf(nic: Nic): string {
  const entries = nic.pfs.map(({ address, nativeDriver }) =>
    [
      `  ${address}:`,
      `    pfKernelDriver: ${nativeDriver}`,
      `    vfKernelDriver: ${nativeDriver}vf`,
      "    capabilities: [intel, 10G]",
      "    serviceDomains: [worker.domain]",
    ].join("\n"),
  );
  return `physicalFunctions:\n${entries.join("\n")}\n`;
}

async function print(
  nic: Nic,
  { netdevs, ports }: { readonly netdevs: NetdevView; readonly ports: Ports },
): Promise<string> {
  const rows = [["function", "driver", "group", "netdev", "mac", "vlan"]];
  for (const fn of nic.functions.values()) {
    const { virtual, iommuGroup } = fn;
    const port = virtual && ports.get(virtual.pf.address);
    const seen = await netdevs.seen(fn);
    const group = iommuGroup === undefined ? "-" : `${iommuGroup}${nic.isOpen(iommuGroup) ? " open" : ""}`;
    rows.push([
      virtual ? `  ${fn.address} VF ${virtual.index}` : `${fn.address} PF`,
      fn.driver ?? "-",
      group,
      seen?.ifname ?? (netdevs.has(fn) ? "elsewhere" : "-"),
      (virtual && port?.adminMac(virtual.index)) ?? "-",
      virtual && port ? String(port.vlan(virtual.index)) : "-",
    ]);
  }
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
