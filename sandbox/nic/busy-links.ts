// Links that answer as iavf does while its VF is reset: card.ts says where that stands in the kernel.
import { Errno, KernelError, type Link, type Rtnl, type SetLink } from "../../src/kernel/index.ts";
import type { NicFunction } from "./nic.ts";

/** What is known of the links' PCI functions. */
export interface BusyLinks {
  /** The virtual function whose link it is; undefined for any other link. */
  functionOf(link: Link): NicFunction | undefined;
  isResetting(fn: NicFunction): boolean;
  /** The address that the PF has set. */
  macOf(fn: NicFunction): string | undefined;
  /** Called with an address that the PCI function has got. */
  choose(fn: NicFunction, mac: string): void;
}

/** The socket; all that it is asked reaches the kernel but what such a driver would refuse. */
export function busyRtnl(rtnl: Rtnl, links: BusyLinks): Rtnl {
  const inner = rtnl.setLink.bind(rtnl);
  const setLink: Rtnl["setLink"] = async (index, change) => {
    const needsDriver = change.up === true || change.address !== undefined || change.mtu !== undefined;
    const link = needsDriver ? await rtnl.linkByIndex(index) : undefined;
    const code = link && refusal(link, change, links);
    if (code) throw new KernelError(`set ${Object.keys(change).join(", ")} of link ${index}`, Errno[code]);
    return await inner(index, change);
  };
  return Object.assign(rtnl, { setLink });
}

function refusal(link: Link, { up, address }: SetLink, links: BusyLinks): keyof typeof Errno | undefined {
  const fn = links.functionOf(link);
  if (!fn) return undefined;
  const isResetting = links.isResetting(fn);
  if (address !== undefined) {
    const admin = links.macOf(fn);
    if (isResetting) return "EAGAIN";
    if (admin !== undefined && admin !== address) return "EACCES";
    links.choose(fn, address);
    return undefined;
  }
  return isResetting && (up === true || link.up) ? "EBUSY" : undefined;
}
