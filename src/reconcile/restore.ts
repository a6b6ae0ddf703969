// VFs that no connection holds, made again what they were: by what the journal has of them, or as far as can be known.
import { messageOf } from "../async/index.ts";
import { type BeforeClient, conditionOf, type VfRecord } from "../inventory/index.ts";
import { type AdoptedGrant, type NodeJournal, netdevPartsOf, othersNames, vfLinkOf } from "../mechanisms/index.ts";
import {
  type AttachmentState,
  BorrowedSettings,
  differingSettings,
  type HostLinks,
  isOtherDevice,
  NetdevAttachment,
  NO_MAC,
  type NotRestored,
  restoreKept,
  unknownState,
  type VfSettings,
} from "../netdev/index.ts";
import type { Node } from "../node/index.ts";
import type { Log } from "../telemetry/index.ts";

export interface RestoreParts {
  readonly node: Pick<Node, "binder" | "inventory" | "pfDoor" | "survey">;
  readonly links: HostLinks;
  readonly journal: Pick<NodeJournal, "vfs" | "unrestored">;
  readonly log: Log;
  /** Ends waiting for a driver, when the process stops. */
  readonly stopping?: AbortSignal;
}

/** What is known of a VF that is to be restored. */
interface ToRestore extends Pick<BeforeClient, "state"> {
  /** A client has had its network device: what it can have left goes with that, wherever it is. */
  readonly isNewNeeded: boolean;
}

/** What the host had set of a network device and could not be set again. */
export interface NotAsBefore {
  /** In words. */
  readonly left: readonly string[];
  /** Another link has its name: it can have that when the other gives it up. */
  readonly isNameTaken: boolean;
}

/** What a PF is made to have of a VF where it is not known what it had. */
export const UNKNOWN_BEFORE: VfSettings = { mac: NO_MAC, vlan: 0 };

const AS_BEFORE: NotAsBefore = { left: [], isNameTaken: false };

/**
 * Puts back what the journal has. Answers with undefined where another driver has the VF: then that is its PF's settings only.
 * @throws {Error} that names what resisted.
 */
export async function restoreVf(
  parts: RestoreParts,
  vf: VfRecord,
  { state, isNewNeeded }: ToRestore,
): Promise<NotAsBefore | undefined> {
  const { node, links } = parts;
  const { address } = vf;
  const before = await node.binder.netdevNow(address);
  if (before) await links.verified(address, before.ifindex);
  if (!isNewNeeded) {
    if (!before) throw new Error(`Cannot restore ${address}: its network device is not in the host`);
    return await makeAsBefore(parts, vf, state);
  }
  // Nothing is known of it from before its client: with the PF's word gone its driver chooses an address, as it did then.
  if (state.original.address === undefined) await restorePfSettings(parts, vf, state.vfBefore).catch(() => {});
  if (await isRenewed(parts, vf)) return await makeAsBefore(parts, vf, await withOwnAddress(parts, vf, state));
  await restorePfSettings(parts, vf, state.vfBefore);
  return undefined;
}

async function withOwnAddress({ node, links, stopping }: RestoreParts, vf: VfRecord, state: AttachmentState) {
  const { original } = state;
  if (original.address !== undefined) return state;
  const { ifindex } = await node.binder.netdevOf(vf.address, stopping);
  const { address } = await links.verified(vf.address, ifindex);
  return { ...state, original: { ...original, address } };
}

async function makeAsBefore(parts: RestoreParts, vf: VfRecord, state: AttachmentState): Promise<NotAsBefore> {
  const refused = await makeNewSo(parts, vf, state);
  const { left, isNameTaken } = await restoreTuning(parts, vf, { state, refused });
  return { left: [...refused.map(textOf), ...left], isNameTaken };
}

/** Has its driver make another network device, and waits for it. False where another driver has taken the VF and the device with it. */
async function isRenewed({ node, links, stopping }: RestoreParts, vf: VfRecord): Promise<boolean> {
  const { address, kernelDriver } = vf;
  await node.binder.renew(vf, stopping);
  if ((await node.binder.driverOf(address)) !== kernelDriver) return false;
  const netdev = await node.binder.netdevOf(address, stopping);
  await links.verified(address, netdev.ifindex);
  return true;
}

/** What the host had chosen, of a device that has nothing of a client. */
async function restoreTuning(
  { node, links, stopping }: RestoreParts,
  vf: VfRecord,
  { state, refused }: { readonly state: AttachmentState; readonly refused: readonly NotRestored[] },
): Promise<NotAsBefore> {
  const netdev = await node.binder.netdevOf(vf.address, stopping);
  const { kept } = state;
  const { isNameTaken, left: name } = nameOf(netdev.ifname, state, refused);
  const left = kept ? await restoreKept(links, { address: vf.address, ifindex: netdev.ifindex, kept }) : [];
  const settingText = ({ setting, before = "unset", after = "unset", error }: (typeof left)[number]) =>
    `${setting} is ${after} where it was ${before}${error ? ` (${error.code})` : ""}`;
  return { left: [...name, ...left.map(settingText)], isNameTaken };
}

function nameOf(ifname: string, { original }: AttachmentState, refused: readonly NotRestored[]): NotAsBefore {
  const isNameTaken = ifname !== original.name && !refused.some(({ what }) => what === "name");
  return {
    isNameTaken,
    left: isNameTaken ? [`it is called ${ifname}, for ${original.name} is another link's name`] : [],
  };
}

/** Whether that is of a VF that was destroyed, and this is the next one that has its address. */
export function isOfOther({ node, links }: RestoreParts, vf: VfRecord, state: AttachmentState): Promise<boolean> {
  return isOtherDevice(vfLinkOf(node.binder, vf, links.settings?.boot), state);
}

/** Of the PF alone. @throws what it refuses. */
export async function restorePfSettings({ node, links, log }: RestoreParts, vf: VfRecord, before: VfSettings) {
  const settings = { ...node.pfDoor(vf.pf), index: vf.index };
  const { clock, random } = links;
  const record = async () => {};
  await new BorrowedSettings({ vf: settings, before, record, clock, random, log }).restore();
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
  const vfLink = vfLinkOf(node.binder, vf, links.settings?.boot);
  const { before, device } = kept;
  await new BorrowedSettings({ vf: settings, before, vfLink, device, record, clock, random, log }).restore();
}

/**
 * Takes away what a client can have left; the name is the one that udev gives to VFs. Without a device: its settings. `guessed` is what
 * its device is to be like yet, where another link has that name.
 */
export async function cleanVf(
  parts: RestoreParts,
  vf: VfRecord,
): Promise<{ readonly found: NotAsBefore; readonly guessed?: BeforeClient }> {
  const { node, links, stopping } = parts;
  const { address, pf, index } = vf;
  const before = await node.binder.netdevNow(address);
  if (before) await links.verified(address, before.ifindex);
  const netdev = (await isRenewed(parts, vf)) ? await node.binder.netdevOf(address, stopping) : undefined;
  if (!netdev) {
    await restorePfSettings(parts, vf, UNKNOWN_BEFORE);
    return { found: AS_BEFORE };
  }
  const pfName = node.survey.pfs.get(pf)?.ifname;
  const name = pfName === undefined ? netdev.ifname : `${pfName}v${index}`;
  const vfLink = vfLinkOf(node.binder, vf, links.settings?.boot);
  const state = await unknownState(links, { address, ifindex: netdev.ifindex, name, vfLink });
  const refused = await makeNewSo(parts, vf, state);
  const { ifname } = await node.binder.netdevOf(address, stopping);
  const { isNameTaken, left } = nameOf(ifname, state, refused);
  const found = { isNameTaken, left: [...refused.map(textOf), ...left] };
  // The PF is as it is to be: what the host sets there from here on stays.
  return isNameTaken ? { found, guessed: { state: { ...state, vfBefore: {} } } } : { found };
}

/**
 * Whether the settings, or the name of the device, are not what they were when the VF was given back. A new device that did not take its
 * name may have kept the one that it had on its way.
 */
export async function hasDrifted({ node }: RestoreParts, vf: VfRecord, { state }: BeforeClient): Promise<boolean> {
  const netdev = conditionOf(vf, "not-as-before") ? undefined : await node.binder.netdevNow(vf.address);
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

/**
 * Of a device that is new, or was made so before: nothing of a client is on it, whatever it does not take. Answers with that.
 * @throws what the PF keeps, which is of the client, and that there is no such device.
 */
async function makeNewSo(parts: RestoreParts, vf: VfRecord, state: AttachmentState): Promise<readonly NotRestored[]> {
  const refused = await detach(parts, vf, state);
  const failure = refused.find(({ what }) => what === "link" || what.startsWith("vf "));
  if (failure) throw resisted(vf, failure);
  return refused;
}

function detach({ node, links, journal, log }: RestoreParts, vf: VfRecord, state: AttachmentState) {
  const names = othersNames({ journal, inventory: node.inventory }, vf.address);
  const parts = { ...netdevPartsOf({ ...node, links }, vf), othersNames: names };
  return new NetdevAttachment({ ...parts, client: undefined, state, log }).detach();
}

function resisted({ address }: VfRecord, { what, error }: NotRestored): Error {
  return new Error(`Cannot restore ${address}: ${what}: ${String(error)}`);
}

function textOf({ what, error }: NotRestored): string {
  return `${what} was refused: ${messageOf(error)}`;
}
