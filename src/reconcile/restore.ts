// VFs that no connection holds, made again what they were: by what the journal has of them, or as far as can be known.
import type { Clock, Random } from "../async/index.ts";
import type { VfRecord } from "../inventory/index.ts";
import type { LinkOwnerOf, Netns, OpenRtnl } from "../kernel/index.ts";
import { type AdoptedGrant, type KernelVfEntry, verifyVfLink, vfLinkOf } from "../mechanisms/index.ts";
import {
  type AttachmentState,
  applyVfSettings,
  BorrowedSettings,
  differingSettings,
  NetdevAttachment,
  strangerState,
} from "../netdev/index.ts";
import type { Node } from "../node/index.ts";
import type { VfNetdev } from "../pci/index.ts";
import type { Log } from "../telemetry/index.ts";

export interface RestoreParts {
  readonly node: Pick<Node, "binder" | "pfDoor" | "survey">;
  /** The host's namespace. */
  readonly netns: Netns;
  readonly openRtnl: OpenRtnl;
  readonly linkOwnerOf: LinkOwnerOf;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Puts back what the journal has. @throws {Error} that names what resisted. */
export async function restoreVf(parts: RestoreParts, vf: VfRecord, { state }: KernelVfEntry): Promise<void> {
  const netdev = await parts.node.binder.netdevNow(vf.address);
  if (!netdev) throw new Error(`Cannot restore ${vf.address}: its network device is not in the host`);
  await verifyVfLink({ ...parts, host: parts.netns }, vf.address, netdev.ifindex);
  const original = { ...state.original, index: netdev.ifindex };
  await makeSo(parts, vf, { ...state, original, name: netdev.ifname });
}

/** In the order in which a VFIO connection ends: docs/decisions/021. @throws what resisted, a process that has it open too. */
export async function revokeAndRestore(
  { node, clock, random, log }: RestoreParts,
  vf: VfRecord,
  left: AdoptedGrant,
): Promise<void> {
  const { entry, grant } = left;
  await grant?.revoke();
  await node.binder.vfio.refuseOpen(vf.address);
  const settings = { ...node.pfDoor(vf.pf), index: vf.index };
  const { keepBefore: record, kept } = entry;
  await new BorrowedSettings({ vf: settings, before: kept.before, record, clock, random, log }).restore();
}

/** Takes away what a client can have left; the name is the one that udev gives to VFs. Without a device: its settings. */
export async function cleanVf(parts: RestoreParts, vf: VfRecord): Promise<void> {
  const { node, netns } = parts;
  const netdev: VfNetdev | undefined = await node.binder.netdevNow(vf.address);
  if (!netdev) return await cleanSettings(parts, vf);
  const pfName = node.survey.pfs.get(vf.pf)?.ifname;
  const of = { address: vf.address, linkOwnerOf: parts.linkOwnerOf };
  const name = pfName === undefined ? netdev.ifname : `${pfName}v${vf.index}`;
  await makeSo(parts, vf, await strangerState({ ...parts, host: netns }, { ifindex: netdev.ifindex, name, of }));
}

async function cleanSettings({ node }: RestoreParts, vf: VfRecord): Promise<void> {
  const [fault] = (await applyVfSettings(node.pfDoor(vf.pf).port, vf.index, { vlan: 0 })).faults;
  if (fault) throw fault.error;
}

/** Whether the settings, or the name of the device, are not what they were when the VF was given back. */
export async function hasDrifted({ node }: RestoreParts, vf: VfRecord, { state }: KernelVfEntry): Promise<boolean> {
  const netdev = await node.binder.netdevNow(vf.address);
  if (netdev && [state.name, state.temporaryName].includes(netdev.ifname) && netdev.ifname !== state.original.name) {
    return true;
  }
  const standing = await node.pfDoor(vf.pf).port.read(vf.index);
  // A driver that takes no empty address was given the VF's own.
  const own = state.original.address?.toLowerCase();
  const { mac, ...others } = state.vfBefore;
  const before = standing.mac === own ? others : { ...others, mac };
  return differingSettings(standing, before).length > 0;
}

async function makeSo(
  { node, netns, openRtnl, linkOwnerOf, clock, random, log }: RestoreParts,
  vf: VfRecord,
  state: AttachmentState,
): Promise<void> {
  const { port, settings } = node.pfDoor(vf.pf);
  const attached = { port, index: vf.index, settings };
  const [of, vfLink] = [{ address: vf.address, linkOwnerOf }, vfLinkOf(node.binder, vf)];
  const places = { host: netns, client: undefined, openRtnl };
  const attachment = new NetdevAttachment({ ...places, state, of, vf: attached, vfLink, clock, random, log });
  const [failure] = await attachment.detach();
  if (failure) throw new Error(`Cannot restore ${vf.address}: ${failure.what}: ${String(failure.error)}`);
}
