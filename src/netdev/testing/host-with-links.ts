// A host's namespace on paper, in which a VF's link is searched.
import type { Link, LinkPlace } from "../../kernel/index.ts";
import type { LinkIdentity } from "../attachment-state.ts";

/** The VF whose link it is. */
export const VF = "0000:01:10.0";
const original = { index: 7, name: "eth1", altNames: [], mtu: 1500, address: undefined, up: false };
/** As its link was before it went out. */
export const identity: LinkIdentity = {
  original: { ...original, parentDevice: VF },
  temporaryName: "nsm-0011223344",
  name: "nsm-1",
  clientIndex: 3,
};

/** A host's namespace with these links, each on the PCI function that is its parent device. */
export function hostWith(...links: readonly Pick<Link, "index" | "name" | "parentDevice">[]) {
  const rtnl = {
    linkByName: async (desired: string) => links.find(({ name }) => name === desired),
    linkByIndex: async (desired: number) => links.find(({ index }) => index === desired),
    links: async () => links,
  };
  const linkOwnerOf = async (_place: LinkPlace, { parentDevice }: Link) => {
    return { pciFunction: parentDevice, text: String(parentDevice) };
  };
  return { host: { rtnl } as unknown as LinkPlace, of: { address: VF, linkOwnerOf } };
}
