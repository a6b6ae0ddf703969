// A VF's link in the host, read before its driver takes it away for another use of the VF: as the host had it, and whose word its address is.
import type { Log } from "../telemetry/index.ts";
import { type AttachmentState, freshState } from "./attachment-state.ts";
import type { HostLinks } from "./host-links.ts";
import { leavingSettings } from "./kept-settings.ts";
import { spareMac } from "./link-mac.ts";
import { verifiedLink } from "./verify-link.ts";
import type { VfLink } from "./vf-link.ts";
import { isPinned, type PfPort } from "./vf-settings-through-pf.ts";

interface LeavingLink {
  /** PCI address of the VF. */
  readonly address: string;
  /** Where sysfs has the VF's link, in the host: what it says is verified. */
  readonly ifindex: number;
  readonly vf: { readonly port: PfPort; readonly index: number };
  readonly vfLink: VfLink;
  readonly log: Log;
}

/** As long as a Request waits for a driver that is busy. */
const READ_LIMIT_MS = 10_000;

/**
 * How the host has the link; of the PF it says nothing. Only reads.
 * @throws {NetdevError} gone, not-its-link, busy; {KernelError} what the kernel refuses.
 */
export async function readHostSide(links: HostLinks, leaving: LeavingLink): Promise<AttachmentState> {
  const { address, ifindex, vfLink, log } = leaving;
  const link = await links.verified(address, ifindex);
  const { linkOwnerOf } = links;
  return await links.inHost((host) =>
    links.patiently([host], { link, log, limitMs: READ_LIMIT_MS }, (patience) =>
      patience.run("read the settings of the link", async () => {
        const now = await verifiedLink(host, ifindex, { address, linkOwnerOf });
        const fresh = { name: now.name, random: links.random, device: await vfLink.device() };
        const state = freshState(now, fresh);
        const kept = await leavingSettings({ links, host, address }, now, state);
        return { ...state, ...(kept && { kept }) };
      }),
    ),
  );
}

/**
 * The address that the PF names for the VF, if the VF has chosen it: many PFs name it as if it were their word (igb_ndo_get_vf_config,
 * i40e_ndo_get_vf_config, ice_get_vf_cfg), and only a link tells, that can have another one. It gets its own again. Undefined where the
 * PF names none, has set it, or trusts the VF, which may choose either way. The link is down afterwards.
 * @throws {NetdevError | KernelError}
 */
export async function chosenMac(links: HostLinks, leaving: LeavingLink): Promise<string | undefined> {
  const { address, ifindex, vf, log } = leaving;
  const { linkOwnerOf } = links;
  return await links.inHost(async (host) => {
    const link = await verifiedLink(host, ifindex, { address, linkOwnerOf });
    const { mac, trust } = await vf.port.read(vf.index);
    if (!isPinned(mac) || trust === true || mac !== link.address?.toLowerCase()) return undefined;
    const set = (change: { readonly up: false } | { readonly address: string }) => host.rtnl.setLink(ifindex, change);
    try {
      if (link.up) await set({ up: false });
      await set({ address: spareMac(mac) });
    } catch (error) {
      log.debug("link-refuses-mac", { ifindex, mac, error });
      return undefined;
    }
    const { mac: named } = await vf.port.read(vf.index);
    await set({ address: mac });
    return named === spareMac(mac) ? mac : undefined;
  });
}
