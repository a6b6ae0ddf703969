// A card's kind made into what the machine's parts do: ports of PFs, links, resets.
import type { Clock } from "../../src/async/index.ts";
import type { Netns, Rtnl } from "../../src/kernel/index.ts";
import { Wire } from "../network/wire.ts";
import { busyRtnl } from "./busy-links.ts";
import { type CardKind, type EswitchMode, QUICK_RESETS, type ResetTimes, VfResets } from "./card.ts";
import { igbRtnl } from "./igb-links.ts";
import type { Nic, NicFunction, NicPf } from "./nic.ts";
import type { PortBehaviour } from "./pf-port.ts";
import type { LinkMaker } from "./sysfs.ts";

export interface CardOptions {
  readonly kind: CardKind;
  /** Of the "iavf" card; its seed is 1 by default. */
  readonly resets?: Partial<ResetTimes> | undefined;
}

/** What of the machine the card works on. */
export interface CardParts {
  readonly nic: Nic;
  readonly netdevs: Pick<LinkMaker, "functionOf">;
  /** A socket in the namespace, of a kernel without this card. */
  readonly openRtnl: (netns: Netns) => Rtnl;
  readonly macOf: (fn: NicFunction) => string | undefined;
  /** The PCI function asks its PF for an address: whether it gets it; undefined of a PF. */
  readonly choose: (fn: NicFunction | undefined, mac: string) => boolean | undefined;
  readonly clock: Clock;
}

/** The behaviour of one card. */
export interface Card {
  readonly kind: CardKind;
  /** As the machine starts. */
  readonly eswitchMode: EswitchMode;
  readonly resets: VfResets<NicFunction> | undefined;
  portOf(pf: NicPf): PortBehaviour;
  openRtnl(netns: Netns): Rtnl;
}

/** The card, before its first PF is there. */
export function cardOf({ kind, resets: times }: CardOptions, parts: CardParts): Card {
  const { nic, netdevs, macOf, choose, clock } = parts;
  const wire = netdevs instanceof Wire ? netdevs : undefined;
  if (kind !== "iavf") {
    return {
      kind,
      eswitchMode: kind === "switchdev" ? "switchdev" : "legacy",
      resets: undefined,
      portOf: () => ({ isSilent: kind === "no-vf-info" }),
      openRtnl: (netns) =>
        igbRtnl(parts.openRtnl(netns), { choose: (link, mac) => choose(netdevs.functionOf(link), mac) }),
    };
  }
  const resets = new VfResets<NicFunction>(
    { seed: 1, ...QUICK_RESETS, ...times },
    { clock, remove: (fn) => nic.remakeNetdev(fn), finish: async (fn) => wire?.takeMac(fn) },
  );
  const vfOf = (pf: NicPf, vfIndex: number) => pf.vfs[vfIndex];
  return {
    kind,
    eswitchMode: "legacy",
    resets,
    portOf: (pf) => ({
      isResetting(vfIndex) {
        const vf = vfOf(pf, vfIndex);
        return vf !== undefined && resets.isResetting(vf);
      },
      ignoresSameMac: true,
      hidesResetting: pf === nic.pfs[0],
      async onChange(vfIndex) {
        const vf = vfOf(pf, vfIndex);
        if (vf) await resets.begin(vf);
      },
    }),
    openRtnl: (netns) =>
      busyRtnl(parts.openRtnl(netns), {
        functionOf: (link) => netdevs.functionOf(link),
        isResetting: (fn) => resets.isResetting(fn),
        macOf,
        choose,
      }),
  };
}
