import {
  type DeviceNumber,
  deviceHolders,
  Errno,
  KernelError,
  type Link,
  type LinkOwner,
  type Netns,
} from "../../src/kernel/index.ts";
import { type Entry, folderOf, textOf } from "../machine/pretend-files.ts";
import { type Nic, type NicFunction, type NicPf, representorName } from "./nic.ts";

/** A network device of a PCI function as the host's namespace sees it. */
export interface SeenNetdev {
  readonly ifname: string;
  readonly ifindex: number;
}

/** Where the network devices of the PCI functions are. */
export interface NetdevView {
  /** Whether the PCI function has a network device in any namespace. */
  has(fn: NicFunction): boolean;
  /** Its network device, when the host's namespace can see it. */
  seen(fn: NicFunction): Promise<SeenNetdev | undefined>;
}

/** What a pretend card asks its machine's links, and tells them. */
export interface LinksParts {
  /** The VLAN that the physical function has given. */
  readonly vlanOf: (fn: NicFunction) => number;
  /** The MAC that it has given. */
  readonly macOf: (fn: NicFunction) => string | undefined;
  /** A device was made, with that MAC. */
  readonly onMade: (fn: NicFunction, mac: string) => void;
  /** A device came back to the host because its namespace died. */
  readonly onReturn: (fn: NicFunction, ifname: string) => void;
}

/** Who knows the links that it made itself, and no other. */
export interface LinkMaker {
  /** Whether its network devices are links, and not only names. */
  readonly hasLinks: boolean;
  /** Which PCI function has a link, in whatever namespace. */
  ownerOf(netns: Netns, link: Link): Promise<LinkOwner>;
  /** The same by what the link says of itself. */
  functionOf(link: Link): NicFunction | undefined;
}

/** /sys/bus/pci/devices */
export function devicesTree(nic: Nic, netdevs: NetdevView): Entry {
  return {
    kind: "folder",
    names: () => [...nic.functions.keys()],
    child: (address) => {
      const fn = nic.functions.get(address);
      return (
        fn && linkTo(`../../../devices/pci0000:00/0000:00:01.0/${address}`, () => functionFolder(nic, fn, netdevs))
      );
    },
  };
}

/** /sys/bus/pci/drivers */
export function driversTree(nic: Nic): Entry {
  return {
    kind: "folder",
    names: () => [...nic.drivers],
    child: (driver) => (nic.drivers.has(driver) ? driverFolder(nic, driver) : undefined),
  };
}

/** Real devices that stand in for those of VFIO, so that processes can open them. */
export interface VfioStandIns {
  /** In place of /dev/vfio/vfio. */
  readonly container: DeviceNumber;
  /** One for each group that is bound to VFIO at the same time. */
  readonly groups: readonly DeviceNumber[];
  /** The processes that can have one open; any by default, which takes a look at all of this machine. */
  readonly processes?: () => readonly number[];
}

/** /dev/full for the container; /dev/zero, random, urandom and kmsg for groups: every machine has them. */
export const commonStandIns: VfioStandIns = {
  container: { major: 1, minor: 7 },
  groups: [5, 8, 9, 11].map((minor) => ({ major: 1, minor })),
};

/** /dev/vfio; character device 10:196 is the container, 245 the major number of the groups on many hosts. */
export function vfioTree(nic: Nic, standIns: VfioStandIns | undefined): Entry {
  return {
    kind: "folder",
    names: () => ["vfio", ...[...nic.vfioGroups.keys()].map(String)],
    child: (name) => {
      if (name === "vfio") return { kind: "device", ...(standIns?.container ?? { major: 10, minor: 196 }) };
      const device = vfioDevice(nic, standIns, Number(name));
      if (!device) return undefined;
      if (!standIns) return groupNode(nic, name, device);
      return groupNode(nic, name, device, () => deviceHolders(name, device, standIns.processes?.()));
    },
  };
}

/** Number of a group's device; undefined while the group has none. */
export function vfioDevice(nic: Nic, standIns: VfioStandIns | undefined, group: number): DeviceNumber | undefined {
  const minor = nic.vfioGroups.get(group);
  if (minor === undefined) return undefined;
  if (!standIns) return { major: 245, minor };
  const device = standIns.groups[minor];
  if (!device) throw new Error(`Cannot make /dev/vfio/${group}: only ${standIns.groups.length} devices stand in`);
  return device;
}

/** Open to the machine's own `openGroup`, or to a process of a pod that has a node of that name and number open. */
function groupNode(
  nic: Nic,
  name: string,
  device: DeviceNumber,
  holders: () => Promise<readonly string[]> = async () => [],
): Entry {
  const heldBy = async () => {
    const processes = await holders();
    return processes.length > 0 || nic.isOpen(Number(name)) ? { processes } : undefined;
  };
  return { kind: "device", ...device, heldBy };
}

function driverFolder(nic: Nic, driver: string): Entry {
  const bound = [...nic.functions.values()].filter((fn) => fn.driver === driver);
  return folderOf({
    ...Object.fromEntries(
      bound.map(({ address }) => [address, linkTo(`../../../../devices/${address}`, () => undefined)]),
    ),
    bind: { kind: "file", write: (text) => nic.bind(driver, text.trim()) },
    unbind: { kind: "file", write: (text) => nic.unbind(driver, text.trim()) },
  });
}

function functionFolder(nic: Nic, fn: NicFunction, netdevs: NetdevView): Entry {
  const { driver, iommuGroup, virtual, inode } = fn;
  const folder = folderOf({
    class: textOf("0x020000"),
    vendor: textOf("0x8086"),
    device: textOf(virtual ? "0x10ca" : "0x10c9"), // those of the 82576
    numa_node: textOf(fn.numaNode),
    driver_override: {
      kind: "file",
      read: () => fn.override ?? "(null)",
      write: (text) => {
        fn.override = text.trim() || undefined;
      },
    },
    driver:
      driver === undefined ? undefined : linkTo(`../../../bus/pci/drivers/${driver}`, () => driverFolder(nic, driver)),
    iommu_group:
      iommuGroup === undefined
        ? undefined
        : linkTo(`../../../../kernel/iommu_groups/${iommuGroup}`, () => groupFolder(nic, iommuGroup)),
    net: netdevs.has(fn) ? netFolder(fn, netdevs) : undefined,
    ...(virtual ? { physfn: functionLink(nic, virtual.pf, netdevs) } : pfEntries(nic, fn as NicPf, netdevs)),
  });
  return { ...folder, inode } as Entry;
}

function pfEntries(nic: Nic, pf: NicPf, netdevs: NetdevView): Record<string, Entry> {
  const links = pf.vfs.map((vf, index) => [`virtfn${index}`, functionLink(nic, vf, netdevs)] as const);
  return {
    ...Object.fromEntries(links),
    sriov_totalvfs: textOf(pf.totalVfs),
    sriov_vf_device: textOf("10ca"),
    sriov_numvfs: {
      kind: "file",
      read: () => String(pf.vfs.length),
      write: (text) => nic.setNumVfs(pf, /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN),
    },
    sriov_drivers_autoprobe: {
      kind: "file",
      read: () => (pf.autoprobe ? "1" : "0"),
      write: (text) => {
        pf.autoprobe = text.trim() === "1";
      },
    },
  };
}

function groupFolder(nic: Nic, group: number): Entry {
  const links = nic.members(group).map(({ address }) => [address, linkTo(`../../../${address}`, () => undefined)]);
  return folderOf({ devices: folderOf(Object.fromEntries(links)), type: textOf("DMA") });
}

/** Empty while the device lives in another network namespace: sysfs shows those of its mount's namespace only. */
function netFolder(fn: NicFunction, netdevs: NetdevView): Entry {
  return {
    kind: "folder",
    names: async () => {
      const seen = await netdevs.seen(fn);
      return [...(seen ? [seen.ifname] : []), ...representorsOf(fn).keys()];
    },
    child: async (name) => {
      const portName = representorsOf(fn).get(name);
      if (portName !== undefined) return folderOf({ phys_port_name: textOf(portName) });
      const seen = await netdevs.seen(fn);
      if (seen?.ifname !== name) return undefined;
      return folderOf({
        ifindex: textOf(seen.ifindex),
        flags: textOf("0x1003"), // up, broadcast, multicast
        carrier: textOf(1),
        speed: textOf(10_000),
        phys_port_name: {
          kind: "file",
          read: () => {
            throw new KernelError(`read phys_port_name of ${name}`, Errno.EOPNOTSUPP);
          },
        },
      });
    },
  };
}

/** Network devices beside the physical function's own, by name: as which port of the switch each stands. */
function representorsOf(fn: NicFunction): ReadonlyMap<string, string> {
  const { vfs = [], eswitchMode } = fn as Partial<NicPf>;
  if (eswitchMode !== "switchdev") return new Map();
  return new Map(vfs.map((_, index) => [representorName(index), `pf0vf${index}`]));
}

function functionLink(nic: Nic, fn: NicFunction, netdevs: NetdevView): Entry {
  return linkTo(`../${fn.address}`, () => functionFolder(nic, fn, netdevs));
}

function linkTo(target: string, to: () => Entry | undefined): Entry {
  return { kind: "link", target, to };
}
