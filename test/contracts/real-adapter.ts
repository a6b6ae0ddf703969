// A real adapter as the contracts want it: the files of this machine, its netlink, one of its virtual functions.
import { Netns, Rtnl } from "../../src/kernel/index.ts";
import { openLinuxHost } from "../../src/node/linux-host.ts";
import { parsePciAddress } from "../../src/pci/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { untilKernel } from "./driver-binding.ts";
import type { SettingsSubject } from "./vf-settings.ts";

export interface RealAdapterOptions {
  /** PCI address of the physical function, bound to its driver. Its virtual ones are not in use. */
  readonly pf: string;
  /** Driver of the virtual functions. */
  readonly vfDriver: string;
  readonly numVfs: number;
}

/** The adapter with virtual functions, for as long as the work takes; it has none before and after. Needs root. */
export async function withRealAdapter(
  options: RealAdapterOptions,
  work: (subject: SettingsSubject) => Promise<void>,
): Promise<void> {
  const { pf, vfDriver, numVfs } = options;
  const paths = { pciDevicesPath: "/sys/bus/pci/devices", pciDriversPath: "/sys/bus/pci/drivers" };
  const host = openLinuxHost({ ...paths, vfioPath: "/dev/vfio", cgroupPath: "/sys/fs/cgroup" }, silentLog);
  const netns = Netns.current();
  const rtnl = Rtnl.open({ netns });
  const { devices } = host;
  const linkOf = async (address: string) => {
    const [ifname = ""] = await devices.list(`${address}/net`);
    const link = await rtnl.linkByName(ifname);
    if (!link) throw new Error(`${address} has no network device`);
    return link;
  };
  try {
    const pfLink = await linkOf(pf);
    await rtnl.setLink(pfLink.index, { up: true });
    await devices.writeText(`${pf}/sriov_numvfs`, String(numVfs));
    const index = numVfs - 1;
    const vf = (await devices.readLink(`${pf}/virtfn${index}`)).split("/").at(-1) ?? "";
    await untilKernel(`${vf} has a network device`, () => devices.exists(`${vf}/net`));
    // igb takes a rate only while it has a carrier (igb_ndo_set_vf_bw), and loses it when VFs are made.
    await untilKernel(`${pf} has a carrier`, async () => (await linkOf(pf)).carrier);
    await work({
      ...host,
      pf,
      vf,
      index,
      kernelDriver: vfDriver,
      port: host.pfPort({ address: parsePciAddress(pf), ifname: pfLink.name, driver: "igb" }),
      macOfNetdev: async () => (await linkOf(vf)).address ?? "",
      setMacOfNetdev: async (address) => rtnl.setLink((await linkOf(vf)).index, { address }),
    });
  } finally {
    await devices.writeText(`${pf}/sriov_numvfs`, "0");
    rtnl.close();
    netns.close();
    await host.close();
  }
}
