// The link of a PF: named by sysfs, found and verified over netlink. Where the two contradict each other, nothing is written.
import {
  type HostFiles,
  isLinkOf,
  type Link,
  type LinkOwner,
  type LinkOwnerOf,
  type LinkPlace,
} from "../kernel/index.ts";
import type { PciAddress } from "./address.ts";
import { PfError } from "./pf-fault.ts";
import { netdevFolder, netdevIndex, orMissing, ownNetdevs } from "./read-sysfs.ts";

/** A network device of a PCI function as sysfs shows it. */
interface SysfsNetdev {
  readonly ifname: string;
  readonly ifindex: number;
  readonly mac: string | undefined;
}

/** The link that netlink has under the index of the sysfs one, and what it sits on. */
interface NetlinkSide {
  readonly link: Link;
  readonly owner: LinkOwner;
}

/** Finds the link of a PF over a socket of the host's namespace. Undefined where sysfs shows none. @throws {PfError} */
export type FindPfLink = (place: LinkPlace, pf: PciAddress) => Promise<Link | undefined>;

/** What a search needs of the node. */
interface PfLinkParts {
  /** /sys/bus/pci/devices */
  readonly devices: HostFiles;
  readonly linkOwnerOf: LinkOwnerOf;
}

/** The index that was found last is only where the search begins: the kernel says each time whose link it is. */
export function pfLinks(parts: PfLinkParts): FindPfLink {
  const lastIndexes = new Map<PciAddress, number>();
  return async (place, pf) => {
    const last = lastIndexes.get(pf);
    const known = last === undefined ? undefined : await sideOf(parts, place, last);
    if (known && isLinkOf(known.link, known.owner, pf)) return known.link;
    const link = await search(parts, place, pf);
    if (link) lastIndexes.set(pf, link.index);
    return link;
  };
}

async function sideOf({ linkOwnerOf }: PfLinkParts, place: LinkPlace, index: number): Promise<NetlinkSide | undefined> {
  const link = await place.rtnl.linkByIndex(index);
  return link && { link, owner: await linkOwnerOf(place, link) };
}

async function search(parts: PfLinkParts, place: LinkPlace, pf: PciAddress): Promise<Link | undefined> {
  let before: SysfsNetdev | undefined;
  for (;;) {
    const sysfs = await sysfsNetdevOf(parts.devices, pf);
    if (!sysfs) return undefined;
    const side = await sideOf(parts, place, sysfs.ifindex);
    if (side && isLinkOf(side.link, side.owner, pf)) return side.link;
    // A driver that makes its device again between the two questions is no contradiction: sysfs says another index then.
    if (before?.ifindex === sysfs.ifindex) throw mismatch(pf, sysfs, side);
    before = sysfs;
  }
}

/** It can be renamed between the list and its files: so often the search starts again. */
const RENAMES = 3;

/** @throws {PfError} several-netdevs. */
async function sysfsNetdevOf(devices: HostFiles, pf: PciAddress): Promise<SysfsNetdev | undefined> {
  for (let left = RENAMES; ; left -= 1) {
    const [ifname, ...others] = await ownNetdevs(devices, pf);
    if (ifname === undefined) return undefined;
    if (others.length > 0) throw severalNetdevs(pf, [ifname, ...others]);
    const ifindex = await netdevIndex(devices, pf, ifname);
    if (ifindex === undefined && left > 0) continue;
    if (ifindex === undefined) return undefined;
    const mac = await orMissing(devices.readText(`${await netdevFolder(devices, pf)}/${ifname}/address`)).catch(
      () => undefined,
    );
    return { ifname, ifindex, mac };
  }
}

/** It is not clear which of them is the PF's. */
export function severalNetdevs(pf: PciAddress, names: readonly string[]): PfError {
  return new PfError("several-netdevs", `Cannot use ${pf}: it has several network devices, ${names.join(", ")}`);
}

/** What two sides that do not speak of the same link mean, both named. */
export function mismatch(pf: PciAddress, sysfs: SysfsNetdev, netlink: NetlinkSide | undefined): PfError {
  const { ifname, ifindex, mac } = sysfs;
  const says = `sysfs has its network device as ${ifname} (index ${ifindex}, address ${mac ?? "unknown"})`;
  if (!netlink) {
    const here = `this process's network namespace has no link ${ifindex}`;
    return new PfError("other-namespace", `Cannot use ${pf}: ${says}, and ${here}; ${SAME_NAMESPACE}`);
  }
  const { link, owner } = netlink;
  const isSameLink = link.name === ifname && link.address === mac && owner.pciFunction === undefined;
  if (isSameLink) {
    const what = `the kernel says that ${ifname} (index ${ifindex}) sits on ${owner.text}, not on that PCI function`;
    return new PfError(
      "unidentified-netdev",
      `Cannot use ${pf}: ${what}; nothing was written; use a driver that names it`,
    );
  }
  const here = `link ${ifindex} of this process's network namespace is ${link.name} (address ${link.address ?? "none"}) on ${owner.text}`;
  return new PfError("other-namespace", `Cannot use ${pf}: ${says}, and ${here}; ${SAME_NAMESPACE}`);
}

const SAME_NAMESPACE =
  "nothing was written; run in the host's network namespace with the host's /sys (hostNetwork: true), not in a pod's with it mounted";
