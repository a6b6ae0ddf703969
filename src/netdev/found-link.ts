// A VF's link that is in a client's namespace, and of which nothing was kept: the Go original put it there, or a forwarder whose
// journal is lost.
import type { Netns } from "../kernel/index.ts";
import { type AttachmentState, DEFAULT_MTU, freshState } from "./attachment-state.ts";
import type { DesiredNetdev } from "./desired.ts";
import type { HostLinks } from "./host-links.ts";
import { prefixText } from "./prefix.ts";
import { isOwnLink } from "./verify-link.ts";
import { NO_MAC } from "./vf-settings-through-pf.ts";

interface Searched {
  /** Stays the caller's. */
  readonly client: Netns;
  /** As the client calls it. */
  readonly name: string;
  /** PCI addresses of the VFs of which one is looked for. */
  readonly addresses: readonly string[];
}

interface InHost {
  /** What the link is to be called there. */
  readonly name: string;
  /** As `VfLink` has it. */
  readonly device: string | undefined;
}

/**
 * Of which VF the link of that name is, by the kernel's word, and its state as far as it is known. Undefined where no link has the
 * name, or it is none of these VFs. Reads only.
 */
export async function foundInClient(
  links: HostLinks,
  { client, name, addresses }: Searched,
  inHost: (address: string) => Promise<InHost>,
): Promise<{ readonly address: string; readonly state: AttachmentState } | undefined> {
  return await links.inClient(client, name, async (place) => {
    const link = await place?.rtnl.linkByName(name);
    if (!place || !link || link.name !== name) return undefined;
    for (const address of addresses) {
      if (!(await isOwnLink(place, link, { address, linkOwnerOf: links.linkOwnerOf }))) continue;
      const { name: nameInHost, device } = await inHost(address);
      const fresh = freshState(link, { name, random: links.random, device });
      const unknown = { name: nameInHost, altNames: [], mtu: DEFAULT_MTU, address: undefined, up: false };
      const original = { ...fresh.original, ...unknown };
      return { address, state: { ...fresh, original, clientIndex: link.index, vfBefore: { mac: NO_MAC, vlan: 0 } } };
    }
    return undefined;
  });
}

/** The same when it is known what the client had been given: that is ours to remove. */
export function ownedAsGiven(state: AttachmentState, { addresses, mtu }: DesiredNetdev): AttachmentState {
  return { ...state, owned: { ...state.owned, addresses: addresses.map(prefixText), mtu: mtu !== undefined } };
}
