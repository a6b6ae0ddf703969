// The real node: sysfs, device nodes, kernel events and network namespaces of this machine.
import { join } from "node:path";
import { openDeviceAccess } from "../access/index.ts";
import { systemRandom } from "../async/index.ts";
import {
  BlockingWrites,
  Devlink,
  linkOwners,
  linuxDisk,
  lockFolder,
  Netns,
  openHostFiles,
  openUevents,
  Rtnl,
  tryLockFolder,
  unixListeners,
  watchFolder,
} from "../kernel/index.ts";
import { linkSettingsOf, type PfMemory, rtnlPfPort } from "../netdev/index.ts";
import { pfLinks } from "../pci/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { Host } from "./host.ts";

/** Where the node's files are; names as in config.ts. */
interface HostPaths {
  readonly pciDevicesPath: string;
  readonly pciDriversPath: string;
  readonly vfioPath: string;
  readonly cgroupPath: string;
}

/** The opened node. */
interface LinuxHost extends Host {
  close(): Promise<void>;
}

/** What is this machine's own, also where the adapters are pretended. */
export function machineDoors(netns: Netns, writes = new BlockingWrites()) {
  return {
    disk: linuxDisk,
    random: systemRandom,
    openFolder: (path) => openHostFiles(path, writes),
    watchFolder,
    netnsOf: Netns.fromFd,
    unixListeners: () => unixListeners(netns),
    linkSettings: linkSettingsOf(netns),
  } satisfies Partial<Host>;
}

/**
 * Opens the node that this process runs on.
 * @throws {KernelError} when the kernel refuses a socket or its own namespace.
 */
export function openLinuxHost(paths: HostPaths, log: Log): LinuxHost {
  const writes = new BlockingWrites();
  const netns = Netns.current();
  const uevents = openUevents(log, netns);
  const rtnl = Rtnl.open({ netns });
  const devlink = Devlink.open(netns);
  const memories = new Map<string, PfMemory>();
  const memoryOf = (address: string) => {
    const memory = memories.get(address) ?? { hasReported: false };
    memories.set(address, memory);
    return memory;
  };
  const devices = openHostFiles(paths.pciDevicesPath, writes);
  const linkOwnerOf = linkOwners(openHostFiles(join(paths.pciDevicesPath, "../.."), writes));
  const pfLink = pfLinks({ devices, linkOwnerOf });
  return {
    devices,
    drivers: openHostFiles(paths.pciDriversPath, writes),
    vfio: openHostFiles(paths.vfioPath, writes),
    uevents,
    netns,
    queryEswitchMode: (pf) => devlink.eswitchMode(pf),
    openRtnl: (place) => Rtnl.open({ netns: place }),
    linkOwnerOf,
    pfLink,
    pfPort: (pf) =>
      rtnlPfPort(rtnl, pf, { link: () => pfLink({ netns, rtnl }, pf.address), memory: memoryOf(pf.address) }),
    // Sysfs has one inode for a device in all mounts of one network namespace, so pods of other releases see the lock, too.
    ...machineDoors(netns, writes),
    locks: { folder: lockFolder, pf: (address) => tryLockFolder(`${paths.pciDevicesPath}/${address}`) },
    openAccess: (parts) => openDeviceAccess({ ...parts, cgroupPath: paths.cgroupPath }),
    async close() {
      uevents.close();
      rtnl.close();
      devlink.close();
      netns.close();
    },
  };
}
