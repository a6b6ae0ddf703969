import { type HostFiles, isRepresentor, KernelError } from "../kernel/index.ts";
import { isPciAddress, type PciAddress } from "./address.ts";

/** The driver a PCI function is bound to; undefined when it is bound to none. */
export async function driverOf(devices: HostFiles, address: PciAddress): Promise<string | undefined> {
  return baseName(await orMissing(devices.readLink(`${address}/driver`)));
}

/** What tells a PCI function from the next one that has its address, in this boot; undefined where there is none. */
export function instanceOf(devices: HostFiles, address: PciAddress): Promise<bigint | undefined> {
  return orMissing(devices.inode(address));
}

/** The IOMMU group of a PCI function; undefined without an IOMMU. */
export async function iommuGroupOf(devices: HostFiles, address: PciAddress): Promise<number | undefined> {
  const name = baseName(await orMissing(devices.readLink(`${address}/iommu_group`)));
  return name !== undefined && /^\d+$/.test(name) ? Number(name) : undefined;
}

/** PCI-to-PCI, include/linux/pci_ids.h. */
const BRIDGE_CLASS = "0x0604";

/**
 * Every PCI function of the IOMMU group that this one belongs to, itself included. Ports of the bus are left out: no client can be
 * given one, and their driver leaves the group to VFIO.
 */
export async function iommuGroupMembers(devices: HostFiles, address: PciAddress): Promise<readonly string[]> {
  const members = (await orMissing(devices.list(`${address}/iommu_group/devices`))) ?? [];
  const classes = await Promise.all(members.map((member) => orMissing(devices.readText(`${member}/class`))));
  return members.filter((_, index) => !classes[index]?.startsWith(BRIDGE_CLASS));
}

/** Names of the network devices of a PCI function that this network namespace can see. */
export async function netdevNames(devices: HostFiles, address: PciAddress): Promise<readonly string[]> {
  const names = await orMissing(devices.list(`${address}/net`));
  if (names) return names;
  const folder = await netdevFolder(devices, address);
  return folder === `${address}/net` ? [] : ((await orMissing(devices.list(folder))) ?? []);
}

const VIRTIO_DRIVER = "virtio-pci";

/**
 * The folder of a PCI function's network devices. A virtio PCI function has a device of its own beneath it, and the network device
 * beneath that (virtio_pci_probe, drivers/virtio/virtio_pci_common.c; virtnet_probe, drivers/net/virtio_net.c).
 */
export async function netdevFolder(devices: HostFiles, address: PciAddress): Promise<string> {
  if ((await driverOf(devices, address)) !== VIRTIO_DRIVER) return `${address}/net`;
  const entries = (await orMissing(devices.list(address))) ?? [];
  const virtio = entries.find((name) => /^virtio\d+$/.test(name));
  return virtio === undefined ? `${address}/net` : `${address}/${virtio}/net`;
}

/**
 * Of a network device of the PCI function; undefined where it has another name by now, or is being taken away: then the kernel
 * answers EINVAL until its files have gone too (netdev_show, net/core/net-sysfs.c).
 */
export async function netdevIndex(
  devices: HostFiles,
  address: PciAddress,
  ifname: string,
): Promise<number | undefined> {
  try {
    return Number(await devices.readText(`${await netdevFolder(devices, address)}/${ifname}/ifindex`));
  } catch (error) {
    if (error instanceof KernelError && ["ENOENT", "ENODEV", "EINVAL"].includes(error.code)) return undefined;
    throw error;
  }
}

/** Its network devices without representors, which represent single virtual functions on a switching NIC ("pf0vf3"). */
export async function ownNetdevs(devices: HostFiles, address: PciAddress): Promise<readonly string[]> {
  const names = await netdevNames(devices, address);
  if (names.length < 2) return names;
  const folder = await netdevFolder(devices, address);
  const ports = await Promise.all(
    // A port without a name answers EOPNOTSUPP.
    names.map((name) => devices.readText(`${folder}/${name}/phys_port_name`).catch(() => "")),
  );
  return names.filter((_, index) => !isRepresentor(ports[index]));
}

/** A PCI function as sysfs has it at this moment. */
export interface VfObservation {
  readonly isPresent: boolean;
  readonly driver: string | undefined;
  readonly iommuGroup: number | undefined;
  /** In the network namespace of the reader. */
  readonly hasNetdev: boolean;
}

/** In as few reads as there can be: hundreds of PCI functions are observed every few seconds. */
export async function observeVf(devices: HostFiles, address: PciAddress): Promise<VfObservation> {
  const [driver, iommuGroup, netdevs] = await Promise.all([
    driverOf(devices, address),
    iommuGroupOf(devices, address),
    netdevNames(devices, address),
  ]);
  const hasNetdev = netdevs.length > 0;
  const isPresent = driver !== undefined || iommuGroup !== undefined || hasNetdev || (await devices.exists(address));
  return { isPresent, driver, iommuGroup, hasNetdev };
}

/** The NUMA node of a PCI function; undefined when the platform does not say. */
export async function numaNodeOf(devices: HostFiles, address: PciAddress): Promise<number | undefined> {
  const node = Number((await orMissing(devices.readText(`${address}/numa_node`))) ?? -1);
  return Number.isInteger(node) && node >= 0 ? node : undefined;
}

/**
 * The virtual functions of a physical one by N of their `virtfnN` links, ascending by number: the kernel's order of names
 * has 10 before 2.
 * @throws {KernelError} EINVAL when a `virtfnN` is no link.
 * @throws {TypeError} when it leads to something that is no PCI function.
 */
export async function virtualFunctionLinks(
  devices: HostFiles,
  pf: PciAddress,
): Promise<readonly { readonly index: number; readonly address: PciAddress }[]> {
  const indexes = (await devices.list(pf)).flatMap((name) => {
    const match = /^virtfn(\d+)$/.exec(name);
    return match ? Number(match[1]) : [];
  });
  indexes.sort((a, b) => a - b);
  return Promise.all(
    indexes.map(async (index) => {
      const target = await devices.readLink(`${pf}/virtfn${index}`);
      const address = baseName(target) ?? "";
      if (!isPciAddress(address)) throw new TypeError(`Cannot read ${pf}/virtfn${index}: it leads to ${target}`);
      return { index, address };
    }),
  );
}

/** Undefined where the file or folder is missing; every other failure is thrown. */
export async function orMissing<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof KernelError && (error.code === "ENOENT" || error.code === "ENODEV")) return undefined;
    throw error;
  }
}

function baseName(path: string | undefined): string | undefined {
  return path?.slice(path.lastIndexOf("/") + 1);
}
