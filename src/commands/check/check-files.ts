import { join } from "node:path";
import {
  BlockingWrites,
  Devlink,
  type EswitchMode,
  type HostFiles,
  linkOwners,
  Netns,
  openHostFiles,
  Rtnl,
} from "../../kernel/index.ts";
import { type FindPfLink, type PciAddress, pfLinks } from "../../pci/index.ts";
import type { CommandSettings } from "../command.ts";

/** The parts of the node that a test puts others in place of. */
export interface CheckFiles {
  readonly devices: HostFiles;
  readonly drivers: HostFiles;
  readonly vfio: HostFiles;
  /** /proc */
  readonly proc: HostFiles;
  /** /sys */
  readonly sys: HostFiles;
  /** Whether the link of a PF is in this process's network namespace and its own. @throws {PfError} */
  readonly verifyLink: (pf: PciAddress) => Promise<unknown>;
  /** Where PFs and idle VFs have their network devices; that of this process by default. */
  readonly netns?: Netns;
  /** devlink's word; the tests' own where they pretend the rest. */
  readonly queryEswitchMode: (pf: string) => Promise<EswitchMode | undefined>;
}

/** The files of this machine. */
export function openCheckFiles(settings: CommandSettings): CheckFiles {
  const writes = new BlockingWrites();
  const devices = openHostFiles(settings.pciDevicesPath, writes);
  const linkOwnerOf = linkOwners(openHostFiles(join(settings.pciDevicesPath, "../.."), writes));
  return {
    devices,
    drivers: openHostFiles(settings.pciDriversPath, writes),
    vfio: openHostFiles(settings.vfioPath, writes),
    proc: openHostFiles("/proc", writes),
    sys: openHostFiles("/sys", writes),
    verifyLink: (pf) => verifyHere(pfLinks({ devices, linkOwnerOf }), pf),
    queryEswitchMode: queryDevlink,
  };
}

async function verifyHere(pfLink: FindPfLink, pf: PciAddress): Promise<void> {
  const netns = Netns.current();
  const rtnl = Rtnl.open({ netns });
  try {
    await pfLink({ netns, rtnl }, pf);
  } finally {
    rtnl.close();
    netns.close();
  }
}

async function queryDevlink(pf: string): Promise<EswitchMode | undefined> {
  const netns = Netns.current();
  const devlink = Devlink.open(netns);
  try {
    return await devlink.eswitchMode(pf);
  } finally {
    devlink.close();
    netns.close();
  }
}
