// Links whose addresses are set as igbvf sets them, in agreement with igb.
import { Errno, KernelError, type Link, type Rtnl } from "../../src/kernel/index.ts";

/** What is known of the links' PCI functions. */
export interface IgbLinks {
  /**
   * The PCI function behind the link asks its PF for an address; false where the PF has named one. Undefined for a link that is not of
   * a virtual function.
   */
  choose(link: Link, mac: string): boolean | undefined;
}

/** The socket; all that it is asked reaches the kernel but an address that igbvf could not get. */
export function igbRtnl(rtnl: Rtnl, links: IgbLinks): Rtnl {
  const inner = rtnl.setLink.bind(rtnl);
  const setLink: Rtnl["setLink"] = async (index, change) => {
    const link = change.address === undefined ? undefined : await rtnl.linkByIndex(index);
    // igbvf_set_mac, drivers/net/ethernet/intel/igbvf/netdev.c: the address that it has after the PF's "no" is another one.
    if (link && change.address !== undefined && links.choose(link, change.address) === false) {
      throw new KernelError(`set ${Object.keys(change).join(", ")} of link ${index}`, Errno.EADDRNOTAVAIL);
    }
    return await inner(index, change);
  };
  return Object.assign(rtnl, { setLink });
}
