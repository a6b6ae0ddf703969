// The guest's adapters as sysfs and iproute2 show them: nothing here is the forwarder's own code.
import { execFile, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, dirname } from "node:path";
import { promisify } from "node:util";
import { eventually } from "./waiting.ts";

const run = promisify(execFile);
const DEVICES = "/sys/bus/pci/devices";
const DRIVERS = "/sys/bus/pci/drivers";

// include/uapi/linux/pci_regs.h
const EXTENDED_CAPABILITIES = 0x100;
const ACS_CAPABILITY = 0x0d;
const ACS_CONTROL = 6;

/** The adapters: their addresses follow from the order of the root ports. */
export const adapters = { left: "0000:01:00.0", right: "0000:02:00.0" } as const;

/** VFs of each. */
export const VFS_PER_ADAPTER = 7;

/** A virtual function as it stands. */
export interface VfState {
  readonly address: string;
  readonly driver: string;
  /** Its network device in the host's namespace. */
  readonly netdev: string | undefined;
  /** What the physical function keeps about it. */
  readonly port: { readonly mac: string; readonly vlan: number };
}

/** Every virtual function of an adapter, in order; none when the adapter is not there. */
export async function vfsOf(pf: string): Promise<readonly VfState[]> {
  if (!existsSync(`${DEVICES}/${pf}/net`)) return [];
  const [ifname = ""] = readdirSync(`${DEVICES}/${pf}/net`);
  const { stdout } = await run("ip", ["-json", "-details", "link", "show", "dev", ifname]);
  const [link] = JSON.parse(stdout) as {
    vfinfo_list?: { vf: number; address: string; vlan_list?: { vlan?: number }[] }[];
  }[];
  return (link?.vfinfo_list ?? []).map(({ vf, address: mac, vlan_list }) => {
    const address = vfAddress(pf, vf);
    return {
      address,
      driver: driverOf(address),
      netdev: netdevOf(address),
      port: { mac, vlan: vlan_list?.[0]?.vlan ?? 0 },
    };
  });
}

/** Until every VF of both adapters is in the host, with its driver, and no client's VLAN is left. */
export async function untilVfsAreRestored(): Promise<void> {
  const observe = async () => (await Promise.all(Object.values(adapters).map(vfsOf))).flat();
  const isRestored = ({ driver, netdev, port }: VfState) =>
    driver === "igbvf" && netdev !== undefined && port.vlan === 0;
  await eventually(observe, (vfs) => vfs.length === 2 * VFS_PER_ADAPTER && vfs.every(isRestored));
}

/** PCI address of the adapter's Nth virtual function. */
export function vfAddress(pf: string, index: number): string {
  return basename(readlinkSync(`${DEVICES}/${pf}/virtfn${index}`));
}

/** Name of the driver, or "none". */
export function driverOf(address: string): string {
  const link = `${DEVICES}/${address}/driver`;
  return existsSync(link) ? basename(readlinkSync(link)) : "none";
}

/** The network device in this namespace. */
export function netdevOf(address: string): string | undefined {
  const folder = `${DEVICES}/${address}/net`;
  return existsSync(folder) ? readdirSync(folder)[0] : undefined;
}

/** Every VF of its IOMMU group, itself included; none without an IOMMU. */
export function groupMembers(address: string): readonly string[] {
  const folder = `${DEVICES}/${address}/iommu_group/devices`;
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** What an operator writes with echo: `operate("0000:01:00.0/sriov_numvfs", "0")`. */
export function operate(path: string, text: string): void {
  writeFileSync(`${DEVICES}/${path}`, text);
}

/** As an operator who binds and unbinds by hand. */
export function driverFile(driver: string, file: "bind" | "unbind", address: string): void {
  writeFileSync(`${DRIVERS}/${driver}/${file}`, address);
}

/** An operator's write that the kernel does not finish: `ended` resolves when it does, with the exit status. */
export function writeAside(
  path: string,
  text: string,
): { readonly ended: Promise<number | null>; readonly isWaiting: boolean } {
  const child = spawn("sh", ["-c", `echo ${text} >${path}`], { stdio: "inherit" });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  return {
    ended,
    get isWaiting() {
      return child.exitCode === null;
    },
  };
}

/**
 * Turns access control off in the port above an adapter, as setpci does: VFs that are made from now on share a group, and
 * the adapter, which has its group already, is not in it.
 */
export function turnAcsOff(adapter: string): void {
  const port = basename(dirname(realpathSync(`${DEVICES}/${adapter}`)));
  const path = `${DEVICES}/${port}/config`;
  const config = readFileSync(path);
  let at = EXTENDED_CAPABILITIES;
  while (config.readUInt16LE(at) !== ACS_CAPABILITY) {
    at = config.readUInt32LE(at) >>> 20;
    if (at === 0) throw new Error(`${port} has no access control to turn off`);
  }
  const file = openSync(path, "r+");
  writeSync(file, Buffer.alloc(2), 0, 2, at + ACS_CONTROL);
  closeSync(file);
}

/** Makes the kernel look for adapters that were taken off the bus. */
export function rescanBus(): void {
  writeFileSync("/sys/bus/pci/rescan", "1");
}

/** As an operator who finds an adapter in whatever state: on the bus, up, with all its VFs under a driver. */
export async function restoreAdapter(pf: string): Promise<void> {
  if (!existsSync(`${DEVICES}/${pf}`)) rescanBus();
  const ifname = netdevOf(pf);
  if (ifname !== undefined) await run("ip", ["link", "set", "dev", ifname, "up"]);
  const numVfs = Number(readFileSync(`${DEVICES}/${pf}/sriov_numvfs`, "utf8"));
  if (numVfs !== VFS_PER_ADAPTER) {
    if (numVfs > 0) operate(`${pf}/sriov_numvfs`, "0");
    operate(`${pf}/sriov_numvfs`, String(VFS_PER_ADAPTER));
  }
  for (let index = 0; index < VFS_PER_ADAPTER; index += 1) {
    const address = vfAddress(pf, index);
    if (driverOf(address) === "none") operate(`${address}/driver_override`, "\n");
    if (driverOf(address) === "none") driverFile("igbvf", "bind", address);
  }
}
