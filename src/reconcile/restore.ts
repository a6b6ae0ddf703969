// VFs that no connection holds, made again what they were: by what the journal has of them, or as far as can be known.
import type { BeforeClient, VfRecord } from "../inventory/index.ts";
import { type AdoptedGrant, netdevPartsOf } from "../mechanisms/index.ts";
import {
  type AttachmentState,
  applyVfSettings,
  BorrowedSettings,
  differingSettings,
  type HostLinks,
  NetdevAttachment,
  unknownState,
} from "../netdev/index.ts";
import type { Node } from "../node/index.ts";
import type { Log } from "../telemetry/index.ts";

export interface RestoreParts {
  readonly node: Pick<Node, "binder" | "pfDoor" | "survey">;
  readonly links: HostLinks;
  readonly log: Log;
}

/** Puts back what the journal has. @throws {Error} that names what resisted. */
export async function restoreVf(parts: RestoreParts, vf: VfRecord, { state }: BeforeClient): Promise<void> {
  const netdev = await parts.node.binder.netdevNow(vf.address);
  if (!netdev) throw new Error(`Cannot restore ${vf.address}: its network device is not in the host`);
  await parts.links.verified(vf.address, netdev.ifindex);
  await makeSo(parts, vf, state);
}

/** In the order in which a VFIO connection ends: docs/decisions/021. @throws what resisted, a process that has it open too. */
export async function revokeAndRestore(
  { node, links, log }: RestoreParts,
  vf: VfRecord,
  left: AdoptedGrant,
): Promise<void> {
  const { entry, grant } = left;
  await grant?.revoke();
  await node.binder.vfio.refuseOpen(vf.address);
  const settings = { ...node.pfDoor(vf.pf), index: vf.index };
  const { keepBefore: record, kept } = entry;
  const { clock, random } = links;
  await new BorrowedSettings({ vf: settings, before: kept.before, record, clock, random, log }).restore();
}

/** Takes away what a client can have left; the name is the one that udev gives to VFs. Without a device: its settings. */
export async function cleanVf(parts: RestoreParts, vf: VfRecord): Promise<void> {
  const { node, links } = parts;
  const { address, pf, index } = vf;
  const netdev = await node.binder.netdevNow(address);
  if (!netdev) {
    const [fault] = (await applyVfSettings(node.pfDoor(pf).port, index, { vlan: 0 })).faults;
    if (fault) throw fault.error;
    return;
  }
  const pfName = node.survey.pfs.get(pf)?.ifname;
  const name = pfName === undefined ? netdev.ifname : `${pfName}v${index}`;
  await makeSo(parts, vf, await unknownState(links, { address, ifindex: netdev.ifindex, name }));
}

/** Whether the settings, or the name of the device, are not what they were when the VF was given back. */
export async function hasDrifted({ node }: RestoreParts, vf: VfRecord, { state }: BeforeClient): Promise<boolean> {
  const netdev = await node.binder.netdevNow(vf.address);
  if (netdev && [state.name, state.temporaryName].includes(netdev.ifname) && netdev.ifname !== state.original.name) {
    return true;
  }
  const actual = await node.pfDoor(vf.pf).port.read(vf.index);
  // A driver that takes no empty address was given the VF's own.
  const own = state.original.address?.toLowerCase();
  const { mac, ...others } = state.vfBefore;
  const before = actual.mac === own ? others : { ...others, mac };
  return differingSettings(actual, before).length > 0;
}

async function makeSo({ node, links, log }: RestoreParts, vf: VfRecord, state: AttachmentState): Promise<void> {
  const parts = netdevPartsOf({ ...node, links }, vf);
  const attachment = new NetdevAttachment({ ...parts, client: undefined, state, log });
  const [failure] = await attachment.detach();
  if (failure) throw new Error(`Cannot restore ${vf.address}: ${failure.what}: ${String(failure.error)}`);
}
