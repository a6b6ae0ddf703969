// What is kept of a link that goes to a client. Plain data, for a journal.
import type { Random } from "../async/index.ts";
import type { Link } from "../kernel/index.ts";
import type { HostLinks } from "./host-links.ts";
import { NOTHING_OWNED, type Owned } from "./owned.ts";
import type { KeptSettings } from "./settings-door.ts";
import { NO_MAC, type VfSettings } from "./vf-settings-through-pf.ts";

/** A link as it was in the host, to be the same again. Plain data. */
interface OriginalLink {
  readonly index: number;
  readonly name: string;
  readonly altNames: readonly string[];
  readonly mtu: number;
  readonly address: string | undefined;
  readonly up: boolean;
  /** What it sits on: news of a link that sits on something else do not concern it. */
  readonly parentDevice: string | undefined;
}

/** What is needed to know a link again. */
export interface LinkIdentity {
  readonly original: OriginalLink;
  /** What it is called on its way, unlike any other link. */
  readonly temporaryName: string;
  /** What it is called in the client's namespace. */
  readonly name: string;
  /** Its index there, once it is in. */
  readonly clientIndex: number | undefined;
}

/** All that must be known to take a link back, also by another process. */
export interface AttachmentState extends LinkIdentity {
  readonly owned: Owned;
  /** What the PF held before we changed it. */
  readonly vfBefore: VfSettings;
  /** What the host had set of it before the first client of this connection; what an older forwarder has kept lacks it. */
  readonly kept?: KeptSettings;
  /** The VF that all this is of, as `VfLink` says. */
  readonly device?: string;
}

/** How the host had a link, as it is known from before it was with the client, or with one before. */
export type HostSide = Pick<AttachmentState, "original" | "kept" | "device">;

interface Fresh {
  /** What it is to be called in the client's namespace. */
  readonly name: string;
  readonly random: Random;
  readonly before?: HostSide | undefined;
  readonly device: string | undefined;
}

/** Of a link of the host that is to go to a client. */
export function freshState(link: Link, { name, random, before, device }: Fresh): AttachmentState {
  const { index, parentDevice } = link;
  const original = before ? { ...before.original, index, parentDevice } : originalOf(link);
  const owned = NOTHING_OWNED;
  const fresh = {
    original,
    temporaryName: newTemporaryName(random),
    name,
    clientIndex: undefined,
    owned,
    vfBefore: {},
  };
  return { ...fresh, ...(before?.kept && { kept: before.kept }), ...(device !== undefined && { device }) };
}

/** The Ethernet default; what a link had before an unknown client is not known either. */
export const DEFAULT_MTU = 1500;

interface UnknownLink {
  readonly address: string;
  readonly ifindex: number;
  readonly name: string;
  /** As `VfLink` has it. */
  readonly vfLink: { device(): Promise<string | undefined> };
}

/**
 * The state of a link whose own state was not kept, in the host: `detach` of what is adopted with it makes it a link that is
 * down, has that name and the default MTU, and for which its PF sets no address and no VLAN.
 * @throws {NetdevError} of kind "gone" or "not-its-link".
 */
export async function unknownState(
  links: HostLinks,
  { address, ifindex, name, vfLink }: UnknownLink,
): Promise<AttachmentState> {
  const link = await links.verified(address, ifindex);
  const fresh = freshState(link, { name: link.name, random: links.random, device: await vfLink.device() });
  const original = { ...fresh.original, name, mtu: DEFAULT_MTU, up: false };
  return { ...fresh, original, vfBefore: { mac: NO_MAC, vlan: 0 } };
}

/** Of a VF that was made in place of the one before. */
export function stateOfOther(state: AttachmentState, link: Link, device: string | undefined): AttachmentState {
  const { temporaryName, name, owned } = state;
  const other = { original: originalOf(link), temporaryName, name, clientIndex: undefined, owned, vfBefore: {} };
  return { ...other, ...(device !== undefined && { device }) };
}

function originalOf(link: Link): OriginalLink {
  const { index, name, altNames, mtu, address, up, parentDevice } = link;
  return { index, name, altNames, mtu, address, up, parentDevice };
}

/** A name for the way: 14 bytes, so unlikely to be taken that it is not checked. */
function newTemporaryName(random: Random): string {
  return `nsm-${random.bytes(5).toString("hex")}`;
}
