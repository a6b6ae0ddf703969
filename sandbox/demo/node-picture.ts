import { basename } from "node:path";
import { Rtnl } from "../../src/kernel/index.ts";
import type { Machine } from "../machine/machine.ts";
import type { SandboxPod } from "../sandbox.ts";

/** One virtual function, read from sysfs, its physical function and the host's network namespace. */
export interface VfPicture {
  readonly address: string;
  readonly pf: string;
  readonly index: number;
  readonly driver: string;
  /** Its network device in the host's namespace; undefined when it is elsewhere. */
  readonly netdev: string | undefined;
  /** Index of the other end on the wire: follows the device through renames and namespaces. */
  readonly wireEnd: number | undefined;
  readonly up: boolean;
  readonly mtu: number | undefined;
  readonly mac: string | undefined;
  /** What the physical function keeps about it. */
  readonly port: { readonly mac: string; readonly vlan: number };
}

export interface PfPicture {
  readonly address: string;
  readonly driver: string;
  readonly netdev: string;
  readonly vfs: readonly VfPicture[];
}

export type NodePicture = readonly PfPicture[];

/** Reads the whole node. Takes nothing from the forwarder's word. */
export async function pictureOf(machine: Machine): Promise<NodePicture> {
  const rtnl = Rtnl.open({ netns: machine.netns });
  try {
    const pfs: PfPicture[] = [];
    for (const address of await machine.devices.list(".")) {
      if (!(await machine.devices.exists(`${address}/sriov_totalvfs`))) continue;
      const [netdev = "-"] = await netdevsOf(machine, address);
      pfs.push({ address, driver: await driverOf(machine, address), netdev, vfs: await vfsOf(machine, address, rtnl) });
    }
    return pfs;
  } finally {
    rtnl.close();
  }
}

async function vfsOf(machine: Machine, pf: string, rtnl: Rtnl): Promise<VfPicture[]> {
  const names = (await machine.devices.list(pf)).filter((name) => name.startsWith("virtfn"));
  const indices = names.map((name) => Number(name.slice("virtfn".length))).sort((a, b) => a - b);
  return Promise.all(
    indices.map(async (index) => {
      const address = basename(await machine.devices.readLink(`${pf}/virtfn${index}`));
      const [netdev] = await netdevsOf(machine, address);
      const link = netdev === undefined ? undefined : await rtnl.linkByName(netdev);
      const { mac, vlan } = machine.pfPort({ address: pf }).settingsOf(index);
      return {
        address,
        pf,
        index,
        driver: await driverOf(machine, address),
        netdev,
        wireEnd: link?.peerIndex,
        up: link?.up ?? false,
        mtu: link?.mtu,
        mac: link?.address,
        port: { mac, vlan },
      };
    }),
  );
}

async function netdevsOf(machine: Machine, address: string): Promise<readonly string[]> {
  return (await machine.devices.exists(`${address}/net`)) ? machine.devices.list(`${address}/net`) : [];
}

async function driverOf(machine: Machine, address: string): Promise<string> {
  const link = `${address}/driver`;
  return (await machine.devices.exists(link)) ? basename(await machine.devices.readLink(link)) : "-";
}

/** A row for each physical function, for a table under `pfHeadings`. */
export function pfRows(picture: NodePicture): readonly (readonly string[])[] {
  return picture.map(({ address, driver, netdev, vfs }) => {
    const drivers = [...new Set(vfs.map((vf) => vf.driver))].join(", ");
    const inHost = vfs.filter((vf) => vf.netdev !== undefined).length;
    return [address, driver, netdev, String(vfs.length), drivers, String(inHost), String(vfs.length - inHost)];
  });
}

export const pfHeadings = ["PF", "driver", "netdev", "VFs", "VF driver", "in the host", "in pods"] as const;

/** A row for each link of a pod, for a table under `podHeadings`. */
export async function podRows(
  picture: NodePicture,
  pods: readonly SandboxPod[],
): Promise<readonly (readonly string[])[]> {
  const vfs = picture.flatMap((pf) => pf.vfs);
  const rows: string[][] = [];
  for (const { name, pod, client } of pods) {
    const address = client.connection?.mechanism?.parameters["pciAddress"];
    const vf = vfs.find((one) => one.address === address);
    for (const link of await pod.links()) {
      const addresses = link.addresses.map((one) => one.split("/")[0]).join(" ");
      rows.push([name, link.name, vf?.address ?? "?", link.mac ?? "-", addresses]);
    }
  }
  return rows;
}

export const podHeadings = ["pod", "netdev", "VF", "MAC", "addresses"] as const;
