// Settings of a link as ethtool(8) makes them: ETHTOOL_MSG_*_SET and the attribute that is set, include/uapi/linux/ethtool_netlink.h.
import { LinkControl, type Netns } from "../../src/kernel/index.ts";

export interface EthtoolChange {
  readonly command: number;
  readonly type: number;
  readonly hex: string;
}

/** NETIF_F_SG off: a bit set of size 1, value 0, mask 1. */
export const WITHOUT_SCATTER_GATHER: EthtoolChange = {
  command: 12,
  type: 3,
  hex: "080002000100000008000400000000000800050001000000",
};

export async function setByEthtool(
  netns: Netns,
  { index }: { readonly index: number },
  change: EthtoolChange,
): Promise<void> {
  const control = await LinkControl.open(netns);
  const value = Buffer.from(change.hex, "hex");
  const attributes = [{ type: change.type, value, isNested: value.length > 4 }];
  const [refusal] = await control.write(index, [{ kind: "ethtool", command: change.command, attributes }]);
  control.close();
  if (refusal) throw refusal;
}
