// The settings of VFs through the link of their PF, by rtnetlink.
import { Errno, KernelError, type Link, type Rtnl, type VfChange } from "../kernel/index.ts";
import { NetdevError } from "./error.ts";
import type { PfPort, VfSettings } from "./vf-settings-through-pf.ts";

/** A PF as operators and the kernel know it. */
export interface PfName {
  readonly address: string;
  readonly ifname: string;
  readonly driver: string;
}

/**
 * What is known of a PF beyond one read. One that has reported its VFs once is only busy when it reports none: drivers leave
 * those out that they cannot answer for (rtnl_fill_vfinfo, net/core/rtnetlink.c), ice while it resets them.
 */
export interface PfMemory {
  hasReported: boolean;
}

/**
 * The port of a PF in the namespace of the socket. At each use `link` finds and verifies it again: udev may rename it, and a reset
 * makes another one of it.
 */
export function rtnlPfPort(
  rtnl: Rtnl,
  { address, ifname, driver }: PfName,
  { link: find, memory }: { readonly link: () => Promise<Link | undefined>; readonly memory: PfMemory },
): PfPort {
  const pfIndex = async () => {
    const link = await find();
    if (!link) throw new NetdevError({ kind: "gone", link: `of PF ${address}`, where: "the host's namespace" });
    return link.index;
  };
  return {
    pf: `${address} (${ifname}, driver ${driver})`,
    async read(vf) {
      const index = await pfIndex();
      const [info] = await rtnl.vfInfos(index, vf);
      if (!info) return await silence(rtnl, { index, vf, memory });
      memory.hasReported = true;
      const { mac, vlan, spoofCheck, trust, linkState, minTxRateMbps, maxTxRateMbps } = info;
      return { mac, vlan, spoofCheck, trust, linkState, minTxRateMbps, maxTxRateMbps };
    },
    async write(vf, change) {
      const index = await pfIndex();
      await rtnl.setVf(index, vf, await vfChange(rtnl, { index, vf, change }));
    },
  };
}

/** What it means that the PF reports nothing of the VF. */
async function silence(
  rtnl: Rtnl,
  { index, vf, memory }: { readonly index: number; readonly vf: number; readonly memory: PfMemory },
): Promise<VfSettings> {
  if (vf >= (await rtnl.vfCount(index))) {
    throw new NetdevError({ kind: "gone", link: `VF ${vf}`, where: `the list of PF link ${index}` });
  }
  if (!memory.hasReported && (await rtnl.vfInfos(index)).length === 0) return {};
  throw new KernelError(`read VF ${vf} of link ${index}`, Errno.EAGAIN, "the PF's driver leaves it out of its list");
}

async function vfChange(rtnl: Rtnl, input: { index: number; vf: number; change: VfSettings }): Promise<VfChange> {
  const { mac, vlan, minTxRateMbps, maxTxRateMbps, spoofCheck, trust, linkState } = input.change;
  const change: VfChange = {
    ...(mac !== undefined && { mac }),
    ...(vlan !== undefined && { vlan }),
    ...(spoofCheck !== undefined && { spoofCheck }),
    ...(trust !== undefined && { trust }),
    ...(linkState !== undefined && { linkState }),
  };
  if (minTxRateMbps === undefined && maxTxRateMbps === undefined) return change;
  // Both limits travel in one attribute: the one that is not requested stays.
  const [info] = await rtnl.vfInfos(input.index, input.vf);
  const minMbps = minTxRateMbps ?? info?.minTxRateMbps ?? 0;
  return { ...change, rate: { minMbps, maxMbps: maxTxRateMbps ?? info?.maxTxRateMbps ?? 0 } };
}
