import { messageOf } from "../async/index.ts";
import type { EswitchMode, HostFiles } from "../kernel/index.ts";
import type { PciAddress } from "./address.ts";
import { type EswitchOptions, eswitchModeOf, switchdevProblem } from "./eswitch.ts";
import type { PfConfig, PfEntry } from "./pf-config-form.ts";
import { PfError, type PfFault, type PfNote, type PfNoteKind } from "./pf-fault.ts";
import { severalNetdevs } from "./pf-link.ts";
import { PfReadings } from "./pf-readings.ts";
import {
  driverOf,
  iommuGroupMembers,
  iommuGroupOf,
  numaNodeOf,
  orMissing,
  ownNetdevs,
  virtualFunctionLinks,
} from "./read-sysfs.ts";
import { resourceName } from "./resource-name.ts";

/** What the node says about one VF. */
export interface VfFacts {
  readonly address: PciAddress;
  readonly pf: PciAddress;
  /** N of the link `virtfnN`: the number under which the PF knows it. */
  readonly index: number;
  /** Undefined without an IOMMU: it can then serve as a network device only. */
  readonly iommuGroup: number | undefined;
  /** Undefined when the platform does not say. */
  readonly numaNode: number | undefined;
  /** The driver for KERNEL, from the configuration. */
  readonly kernelDriver: string;
  /** Resource names it is offered under. */
  readonly resources: readonly string[];
  /** The driver it is bound to now. */
  readonly driver: string | undefined;
  /** Why VFIO cannot be had although there is a group, for example that an unmanaged device shares it. */
  readonly vfioProblem?: string | undefined;
}

/** A usable physical function with its virtual ones, in the order of their index. */
export interface PhysicalFunction {
  readonly address: PciAddress;
  readonly entry: PfEntry;
  readonly driver: string;
  /** Its own network device, through which the virtual functions get MAC, VLAN and the like. */
  readonly ifname: string;
  /**
   * Of that device; undefined when it could not be read in the same observation. The kernel gives another one each time that the
   * driver makes the device (dev_new_index, net/core/dev.c): an adapter that was away is known by it.
   */
  readonly ifindex: number | undefined;
  readonly numaNode: number | undefined;
  /** The most virtual functions it could have. */
  readonly totalVfs: number;
  /** "switchdev": no client is given a VF of it. */
  readonly eswitchMode: EswitchMode;
  readonly vfs: readonly VfFacts[];
}

/** What the node has of the configuration. */
export interface Discovery {
  readonly pfs: readonly PhysicalFunction[];
  readonly faults: readonly PfFault[];
  readonly notes: readonly PfNote[];
}

/** What the scan reads, and what it calls. */
interface DiscoverOptions extends EswitchOptions {
  /** /sys/bus/pci/drivers */
  readonly drivers: HostFiles;
  /** Called before anything of a physical function is changed: whether its link is its own. @throws {PfError} */
  readonly verifyLink?: (pf: PciAddress) => Promise<unknown>;
  /** Of all observations; of this one alone by default. */
  readonly readings?: PfReadings;
}

/**
 * Observes every configured physical function in sysfs, all at once, and changes nothing. What a decision rests on is read
 * once: two observations are never taken for one. A PF that cannot be used, or whose files do not answer, becomes a fault and
 * does not touch the others; never throws.
 */
export async function discover(config: PfConfig, options: DiscoverOptions): Promise<Discovery> {
  const notes: PfNote[] = [];
  const faults: PfFault[] = [];
  const { readings = new PfReadings(options.clock) } = options;
  const found = await Promise.all(
    config.physicalFunctions.map(async (entry) => {
      try {
        const report: Report = (kind, message) => notes.push({ address: entry.address, kind, message });
        return await readings.of(entry.address, () => readPf(entry, options, report));
      } catch (error) {
        faults.push(toFault(entry.address, error));
        return [];
      }
    }),
  );
  const pfs = found.flat();
  return { pfs: await withVfioProblems(pfs, options.devices), faults, notes };
}

type Report = (kind: PfNoteKind, message: string) => void;

async function readPf(entry: PfEntry, options: DiscoverOptions, report: Report): Promise<PhysicalFunction> {
  const { devices, drivers } = options;
  const { address } = entry;
  const driver = await checkPf(entry, devices);
  const ifname = chooseNetdev(address, await ownNetdevs(devices, address));
  await options.verifyLink?.(address);
  if (driver !== entry.pfKernelDriver) {
    report("pf-driver-differs", `${address} is bound to ${driver}, the configuration says ${entry.pfKernelDriver}`);
  }
  if (!(await drivers.exists(entry.vfKernelDriver))) {
    const { vfKernelDriver } = entry;
    report("vf-driver-missing", `${address}: driver ${vfKernelDriver} is not loaded; run: modprobe ${vfKernelDriver}`);
  }
  const eswitchMode = await eswitchModeOf(address, options);
  if (eswitchMode === "switchdev") report("switchdev-mode", switchdevProblem(address));
  // Never sriov_numvfs: reading it waits for its writer, and that one perhaps for a device that a process has open.
  const vfs = await readVfs(entry, devices);
  const totalVfs = Number(await devices.readText(`${address}/sriov_totalvfs`));
  reportCounts(entry, { totalVfs, vfs, report });
  const ifindex = toIndex(await orMissing(devices.readText(`${address}/net/${ifname}/ifindex`)));
  const numaNode = await numaNodeOf(devices, address);
  return { address, entry, driver, ifname, ifindex, numaNode, totalVfs, eswitchMode, vfs };
}

function toIndex(text: string | undefined): number | undefined {
  const index = Number(text ?? Number.NaN);
  return Number.isInteger(index) ? index : undefined;
}

async function checkPf({ address, pfKernelDriver }: PfEntry, devices: HostFiles): Promise<string> {
  if (!(await devices.exists(address))) {
    throw new PfError(
      "missing",
      `Cannot use ${address}: this node has no such PCI function; look whether the card is in its slot and its address is right, or take it out of the list`,
    );
  }
  if (await devices.exists(`${address}/physfn`)) {
    throw new PfError("is-virtual", `Cannot use ${address}: it is a virtual function; configure its physical function`);
  }
  if (!(await devices.exists(`${address}/sriov_totalvfs`))) {
    const hint = "is SR-IOV turned on in the firmware of the adapter and of the machine?";
    throw new PfError("not-sriov", `Cannot use ${address}: it offers no virtual functions; ${hint}`);
  }
  const driver = await driverOf(devices, address);
  if (driver === undefined) {
    throw new PfError("no-driver", `Cannot use ${address}: it has no driver; run: modprobe ${pfKernelDriver}`);
  }
  return driver;
}

function chooseNetdev(address: PciAddress, names: readonly string[]): string {
  const [ifname, ...others] = names;
  if (ifname === undefined) {
    throw new PfError("no-netdev", `Cannot use ${address}: its driver has made no network device in this namespace`);
  }
  if (others.length > 0) throw severalNetdevs(address, names);
  return ifname;
}

async function readVfs(entry: PfEntry, devices: HostFiles): Promise<readonly VfFacts[]> {
  const resources = entry.serviceDomains.flatMap((domain) =>
    entry.capabilities.map((capability) => resourceName(domain, capability)),
  );
  const links = await virtualFunctionLinks(devices, entry.address);
  return Promise.all(
    links.map(async ({ index, address }) => ({
      address,
      index,
      pf: entry.address,
      kernelDriver: entry.vfKernelDriver,
      resources,
      iommuGroup: await iommuGroupOf(devices, address),
      numaNode: await numaNodeOf(devices, address),
      driver: await driverOf(devices, address),
    })),
  );
}

function reportCounts(
  entry: PfEntry,
  { totalVfs: total, vfs, report }: Pick<PhysicalFunction, "totalVfs" | "vfs"> & { readonly report: Report },
): void {
  const { address, numVfs } = entry;
  const current = vfs.length;
  if (total === 0) report("no-vfs", `${address} offers no virtual functions: sriov_totalvfs is 0`);
  if (numVfs !== undefined && numVfs > total) {
    report("vf-count-differs", `${address} can have ${total} virtual functions, the configuration wants ${numVfs}`);
  } else if (numVfs !== undefined && current > 0 && numVfs !== current) {
    const why = "an existing number is never changed; write 0 to its sriov_numvfs when no client runs";
    report(
      "vf-count-differs",
      `${address} has ${current} virtual functions, the configuration wants ${numVfs}; ${why}`,
    );
  }
  const real = new Map(vfs.map((vf) => [vf.address, vf]));
  for (const listed of entry.virtualFunctions) {
    const vf = real.get(listed.address);
    if (!vf && current === 0) continue; // none is made yet
    if (!vf) {
      report("listed-vf-missing", `${address} has no virtual function ${listed.address}, which the file lists`);
    } else if (listed.iommuGroup !== undefined && listed.iommuGroup !== vf.iommuGroup) {
      const group = vf.iommuGroup === undefined ? "no IOMMU group" : `IOMMU group ${vf.iommuGroup}`;
      report("listed-vf-missing", `${listed.address} is in ${group}, the file says ${listed.iommuGroup}`);
    }
  }
}

/** Notes on each VF of a group that also holds devices which are not ours: VFIO cannot be had there. */
async function withVfioProblems(
  pfs: readonly PhysicalFunction[],
  devices: HostFiles,
): Promise<readonly PhysicalFunction[]> {
  const ours = new Set<string>(pfs.flatMap(({ vfs }) => vfs.map(({ address }) => address)));
  const oneOfEach = new Map(pfs.flatMap(({ vfs }) => vfs.map((vf) => [vf.iommuGroup, vf.address] as const)));
  const problems = new Map<number, string>();
  await Promise.all(
    [...oneOfEach].map(async ([group, address]) => {
      if (group === undefined) return;
      const others = (await iommuGroupMembers(devices, address)).filter((member) => !ours.has(member));
      if (others.length > 0) problems.set(group, `its IOMMU group ${group} also holds ${others.join(", ")}`);
    }),
  );
  const problemOf = ({ iommuGroup }: VfFacts) => (iommuGroup === undefined ? undefined : problems.get(iommuGroup));
  return pfs.map((pf) => ({ ...pf, vfs: pf.vfs.map((vf) => ({ ...vf, vfioProblem: problemOf(vf) })) }));
}

function toFault(address: PciAddress, error: unknown): PfFault {
  if (error instanceof PfError) return { address, kind: error.kind, message: error.message };
  const what = messageOf(error);
  return { address, kind: "unreadable", message: `Cannot use ${address}: ${what}` };
}
