import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { busInfoOf } from "./ethtool-ioctl.ts";
import type { HostFiles } from "./host-files.ts";
import type { Link } from "./netlink/link.ts";
import type { Rtnl } from "./netlink/rtnl.ts";
import type { Netns } from "./netns.ts";

/** A network namespace and a socket in it. */
export interface LinkPlace {
  readonly netns: Netns;
  readonly rtnl: Rtnl;
}

/** What a link sits on, as the kernel says. */
export interface LinkOwner {
  /** "0000:3b:02.1"; undefined when it is no PCI function. */
  readonly pciFunction: string | undefined;
  /** The same for the operator: "PCI function 0000:3b:02.1", "virtio2 of PCI function 0000:00:03.0", "no device (it is a veth)". */
  readonly text: string;
}

/**
 * Reads from the kernel, in the place of the link, what the link sits on now.
 * @throws {KernelError} ENODEV when the link has gone; EAGAIN while its driver cannot say, only before Linux 5.14.
 */
export type LinkOwnerOf = (place: LinkPlace, link: Link) => Promise<LinkOwner>;

/** The parent device of a link: its name on its bus. */
interface ParentDevice {
  readonly name: string;
  /** Undefined where only the driver was queried, which names a PCI function or something of its own. */
  readonly bus: string | undefined;
}

const PCI_ADDRESS = /^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/;
/** devlink_port's names (Linux, net/devlink/port.c, __devlink_port_phys_port_name_get), older drivers' own alike. */
const REPRESENTOR = /^(c\d+)?pf\d+(vf|sf)\d+$/;

/** Whether a port of that name represents a VF or subfunction on a switching NIC: "pf0vf3". Its parent is the PF. */
export function isRepresentor(portName: string | undefined): boolean {
  return portName !== undefined && REPRESENTOR.test(portName);
}

/**
 * By netlink (Linux 5.14), else by the driver's word over ethtool, both in the namespace of the link: the network part of sysfs
 * speaks of the namespace in which sysfs was mounted. The tree of buses is the same for every namespace.
 */
export function linkOwners(
  /** /sys/bus */
  buses: HostFiles,
  queryDriver = busInfoOf,
): LinkOwnerOf {
  return async (place, link) => {
    const { parentDevice: name, parentBus: bus } = link;
    const parent = name === undefined ? await parentByDriver(place, link, queryDriver) : { name, bus };
    const via = parent?.bus === "virtio" ? await functionOfVirtio(buses, parent.name) : undefined;
    return describeOwner(link, parent, via);
  };
}

/** So often a link may be renamed while its driver is queried. */
const RENAMES = 3;

/** ethtool queries by name, and names move from link to link: the answer counts only where the name was still this link's. */
async function parentByDriver(
  { netns, rtnl }: LinkPlace,
  link: Link,
  queryDriver: typeof busInfoOf,
): Promise<ParentDevice | undefined> {
  // One that has a kind was made by software (IFLA_INFO_KIND): hundreds of veths on a node need no query.
  if (link.kind !== undefined) return undefined;
  const op = `ask what link ${link.index} sits on`;
  let { name } = link;
  for (let left = RENAMES; ; left -= 1) {
    const answer = queryOnce(() => queryDriver(netns, name));
    const now = await rtnl.linkByIndex(link.index);
    if (!now) throw new KernelError(op, Errno.ENODEV);
    if (now.name === name) {
      if (answer.isAway) throw new KernelError(op, Errno.EAGAIN, "its driver is being reset");
      return answer.busInfo === undefined ? undefined : { name: answer.busInfo, bus: undefined };
    }
    if (left === 0) throw new KernelError(op, Errno.EAGAIN, "it is being renamed");
    name = now.name;
  }
}

function queryOnce(query: () => string | undefined): {
  readonly busInfo?: string | undefined;
  readonly isAway: boolean;
} {
  try {
    return { busInfo: query(), isAway: false };
  } catch (error) {
    if (error instanceof KernelError && error.code === "ENODEV") return { isAway: true };
    throw error;
  }
}

/** The link of a virtio device is "../../../devices/pci0000:00/0000:00:03.0/virtio2": its PCI function is the folder above. */
async function functionOfVirtio(buses: HostFiles, name: string): Promise<string | undefined> {
  if (!/^virtio\d+$/.test(name)) return undefined;
  try {
    const above = (await buses.readLink(`virtio/devices/${name}`)).split("/").at(-2);
    return above !== undefined && PCI_ADDRESS.test(above) ? above : undefined;
  } catch (error) {
    if (error instanceof KernelError) return undefined; // It has gone, or this sysfs does not have it.
    throw error;
  }
}

/** What the facts say. A subfunction ("auxiliary") belongs to its PF's card and is not the PF, so it sits on no PCI function. */
export function describeOwner(
  link: Pick<Link, "kind" | "portName">,
  parent: ParentDevice | undefined,
  virtioFunction?: string,
): LinkOwner {
  const port = isRepresentor(link.portName) ? `, as the representor ${link.portName}` : "";
  if (!parent) {
    const kind = link.kind === undefined ? "" : ` (it is a ${link.kind})`;
    return { pciFunction: undefined, text: `no device${kind}` };
  }
  const { name, bus } = parent;
  if (virtioFunction) return { pciFunction: virtioFunction, text: `${name} of PCI function ${virtioFunction}${port}` };
  const isPci = (bus === undefined || bus === "pci") && PCI_ADDRESS.test(name);
  if (isPci) return { pciFunction: name, text: `PCI function ${name}${port}` };
  return { pciFunction: undefined, text: `device ${name}${bus === undefined ? "" : ` of bus ${bus}`}` };
}

/** Whether the link is the network device of that PCI function itself. */
export function isLinkOf(link: Pick<Link, "portName">, owner: LinkOwner, pciFunction: string): boolean {
  return owner.pciFunction === pciFunction && !isRepresentor(link.portName);
}
