// The settings of a link that the host had chosen: kept when it goes out, given back to the device that its driver has made after a client.
import type { Link, LinkPlace } from "../kernel/index.ts";
import type { AttachmentState } from "./attachment-state.ts";
import type { HostLinks } from "./host-links.ts";
import { altNameSetting } from "./link-settings.ts";
import type { NotRestoredSetting } from "./restore-link-settings.ts";
import { type KeptSettings, keptSettings } from "./settings-door.ts";

/**
 * Gives a new device of the VF what the host had set of the one before. Answers with what it does not take. Its altnames are udev's
 * business, which may give it some at any moment.
 * @throws {NetdevError | KernelError} when the link is not there, or not the VF's.
 */
export async function restoreKept(
  links: HostLinks,
  { address, ifindex, kept }: { readonly address: string; readonly ifindex: number; readonly kept: KeptSettings },
): Promise<readonly NotRestoredSetting[]> {
  const { settings: door } = links;
  if (!door || door.boot !== kept.boot) return [];
  const link = await links.verified(address, ifindex);
  const isNewAltName = (name: string) => name.startsWith(altNameSetting("")) && kept.settings[name] === undefined;
  return await links.inHost(async (host) => {
    const now = Object.entries(await door.read(host, link));
    const theirs = Object.fromEntries(now.filter(([name]) => isNewAltName(name)));
    const { remaining } = await door.restore(host, link, { ...kept.settings, ...theirs });
    return remaining.filter(({ setting }) => !isNewAltName(setting));
  });
}

/**
 * What the host has set of a link that is about to go out, or is to have again: what it did not take when the client before had left
 * it, it may take now. What was kept in another boot is not that. Undefined where nothing reads settings.
 */
export async function leavingSettings(
  { links, host, address }: { readonly links: HostLinks; readonly host: LinkPlace; readonly address: string },
  link: Link,
  { kept, original }: Pick<AttachmentState, "kept" | "original">,
): Promise<KeptSettings | undefined> {
  const known = kept?.boot === links.settings?.boot ? kept : undefined;
  if (known) await restoreKept(links, { address, ifindex: link.index, kept: known });
  if (link.mtu !== original.mtu) await host.rtnl.setLink(link.index, { mtu: original.mtu }).catch(() => {});
  return known ?? (await keptSettings(links.settings, host, link));
}
