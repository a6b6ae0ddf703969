import { type HostFiles, KernelError } from "../../kernel/index.ts";
import {
  driverOf,
  isPciAddress,
  netdevFolder,
  netdevNames,
  numaNodeOf,
  orMissing,
  ownNetdevs,
  type PciAddress,
  virtualFunctionLinks,
} from "../../pci/index.ts";
import type { Adapter, AdapterLink, NodeAdapters } from "./adapter.ts";

/** Where to read. */
export interface AdapterFiles {
  /** /sys/bus/pci/devices */
  readonly devices: HostFiles;
  /** /proc */
  readonly proc: HostFiles;
}

/** Base class of network controllers, PCI Code and ID Assignment Specification. */
const NETWORK_CLASS = 0x02;
/** IFF_UP, include/uapi/linux/if.h. */
const IFF_UP = 1;

/** Reads every adapter of the node, by address. @throws {KernelError} when the list of PCI devices cannot be read. */
export async function readAdapters({ devices, proc }: AdapterFiles): Promise<NodeAdapters> {
  const addresses = (await devices.list(".")).filter(isPciAddress);
  const found = await Promise.all(addresses.map((address) => readAdapter(devices, address)));
  return { adapters: found.flat(), defaultRoutes: await readDefaultRoutes(proc) };
}

async function readAdapter(devices: HostFiles, address: PciAddress): Promise<readonly Adapter[]> {
  const number = async (name: string) => numberOf(await orMissing(devices.readText(`${address}/${name}`)));
  const classCode = (await number("class")) ?? 0;
  const totalVfs = await number("sriov_totalvfs");
  if (totalVfs === undefined && classCode >> 16 !== NETWORK_CLASS) return [];
  const own = await ownNetdevs(devices, address);
  const vfDevice = await orMissing(devices.readText(`${address}/sriov_vf_device`));
  return [
    {
      address,
      classCode,
      vendorId: (await number("vendor")) ?? 0,
      deviceId: (await number("device")) ?? 0,
      driver: await driverOf(devices, address),
      vfDeviceId: numberOf(vfDevice === undefined ? undefined : `0x${vfDevice}`), // the one file without its 0x
      numaNode: await numaNodeOf(devices, address),
      isVirtual: await devices.exists(`${address}/physfn`),
      totalVfs,
      vfs: await readVfs(devices, address),
      links: await Promise.all(own.map((ifname) => readLink(devices, address, ifname))),
      representorCount: (await netdevNames(devices, address)).length - own.length,
    },
  ];
}

async function readVfs(devices: HostFiles, pf: PciAddress): Promise<Adapter["vfs"]> {
  const links = await virtualFunctionLinks(devices, pf);
  return Promise.all(links.map(async ({ address }) => ({ address, driver: await driverOf(devices, address) })));
}

async function readLink(devices: HostFiles, address: PciAddress, ifname: string): Promise<AdapterLink> {
  const folder = `${await netdevFolder(devices, address)}/${ifname}`;
  const flags = numberOf(await orMissing(devices.readText(`${folder}/flags`))) ?? 0;
  const speedMbps = numberOf(await readWhileUp(devices, `${folder}/speed`));
  const master = await orMissing(devices.readLink(`${folder}/master`));
  return {
    ifname,
    isUp: (flags & IFF_UP) !== 0,
    speedMbps: speedMbps !== undefined && speedMbps > 0 ? speedMbps : undefined,
    master: master?.slice(master.lastIndexOf("/") + 1),
  };
}

/** The file answers EINVAL while the device is down (speed_show, net/core/net-sysfs.c). */
async function readWhileUp(files: HostFiles, path: string): Promise<string | undefined> {
  try {
    return await files.readText(path);
  } catch (error) {
    if (error instanceof KernelError) return undefined;
    throw error;
  }
}

/** Decimal or with 0x, as sysfs writes it; undefined for anything else. */
function numberOf(text: string | undefined): number | undefined {
  const value = text === undefined || text.trim() === "" ? Number.NaN : Number(text);
  return Number.isInteger(value) ? value : undefined;
}

/** Devices of routes to 0.0.0.0/0, /proc/net/route (fib_route_seq_show, net/ipv4/fib_trie.c). */
async function readDefaultRoutes(proc: HostFiles): Promise<readonly string[]> {
  const table = (await orMissing(proc.readText("self/net/route"))) ?? "";
  const routes = table.split("\n").map((line) => line.split(/\s+/));
  const isDefault = ([, destination, , , , , , mask]: readonly string[]) => Number(`0x${destination}${mask}`) === 0;
  return [
    ...new Set(
      routes
        .slice(1)
        .filter(isDefault)
        .flatMap(([ifname]) => ifname ?? []),
    ),
  ];
}
