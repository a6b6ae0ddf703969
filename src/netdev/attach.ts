import { messageOf } from "../async/index.ts";
import type { Netns } from "../kernel/index.ts";
import { type AttachmentParts, type AttachmentState, NetdevAttachment } from "./attachment.ts";
import type { DesiredNetdev } from "./desired.ts";
import { NetdevError } from "./error.ts";
import type { HostLinks } from "./host-links.ts";
import { newTemporaryName, originalOf } from "./move.ts";
import { NOTHING_OWNED } from "./owned.ts";
import { NO_MAC } from "./vf-settings-through-pf.ts";

export interface AttachOptions extends Omit<AttachmentParts, "client" | "state"> {
  /** Where it shall be; stays the caller's, open as long as the attachment is used. */
  readonly client: Netns;
  /** Where sysfs has the VF's link, in the host: what it says is verified. */
  readonly ifindex: number;
  readonly desired: DesiredNetdev;
  readonly signal?: AbortSignal | undefined;
  /**
   * Gets what an attach that failed could not undo, before the error "left-behind" is thrown: another `detach` continues
   * with it.
   */
  readonly keepLeft?: ((attachment: NetdevAttachment) => void) | undefined;
}

/**
 * The original's inject, connectioncontextkernel and ethernetcontext. Gives a link of the host to a client: its own
 * address and the settings on the PF (decision 034), move, name, addresses, routes, rules, neighbours, up. When a step fails all is undone.
 * @throws {NetdevError | KernelError} the first failure; of kind "left-behind" when the link is not what it was before.
 */
export async function attachNetdev(options: AttachOptions): Promise<NetdevAttachment> {
  const { links, address, client, ifindex, desired, signal, keepLeft } = options;
  if (client.isSame(links.netns)) throw new NetdevError({ kind: "host-namespace" });
  const original = originalOf(await links.verified(address, ifindex));
  const temporaryName = newTemporaryName(links.random);
  const state = { original, temporaryName, name: desired.name, clientIndex: undefined, owned: NOTHING_OWNED };
  const attachment = new NetdevAttachment({ ...options, state: { ...state, vfBefore: {} } });
  try {
    await attachment.enter(desired, signal);
    return attachment;
  } catch (error) {
    const left = await attachment.detach();
    if (left.length === 0) throw error;
    keepLeft?.(attachment);
    const reason = messageOf(error);
    const what = left.map((failure) => failure.what);
    throw new NetdevError({ kind: "left-behind", link: original.name, reason, left: what }, { cause: error });
  }
}

/** The Ethernet default; what a link had before an unknown client is not known either. */
const DEFAULT_MTU = 1500;

/**
 * The state of a link whose own state was not kept, in the host: `detach` of what is adopted with it makes it a link that is
 * down, has that name and the default MTU, and for which its PF sets no address and no VLAN.
 * @throws {NetdevError} of kind "gone" or "not-its-link".
 */
export async function unknownState(
  links: HostLinks,
  { address, ifindex, name }: { readonly address: string; readonly ifindex: number; readonly name: string },
): Promise<AttachmentState> {
  const link = await links.verified(address, ifindex);
  return {
    original: { ...originalOf(link), name, mtu: DEFAULT_MTU, up: false },
    temporaryName: newTemporaryName(links.random),
    name: link.name,
    clientIndex: undefined,
    owned: NOTHING_OWNED,
    vfBefore: { mac: NO_MAC, vlan: 0 },
  };
}
