// A link is written to only after the kernel has said that it is the VF's: docs/decisions/026.
import { isLinkOf, type Link, type LinkOwnerOf, type LinkPlace } from "../kernel/index.ts";
import { NetdevError } from "./error.ts";

/** Whose link is to be found, and what says whose a link is. */
export interface VfIdentity {
  /** PCI address of the VF, "0000:3b:02.1". */
  readonly address: string;
  readonly linkOwnerOf: LinkOwnerOf;
}

/** Whether the link is the VF's own, as the kernel says in the place of the link. */
export async function isOwnLink(place: LinkPlace, link: Link, { address, linkOwnerOf }: VfIdentity): Promise<boolean> {
  return isLinkOf(link, await linkOwnerOf(place, link), address);
}

/**
 * The link of the host that has that index.
 * @throws {NetdevError} of kind "gone", or "not-its-link" when it is not the VF's.
 */
export async function verifiedLink(place: LinkPlace, ifindex: number, vf: VfIdentity): Promise<Link> {
  const { address, linkOwnerOf } = vf;
  const link = await place.rtnl.linkByIndex(ifindex);
  if (!link) throw new NetdevError({ kind: "gone", link: `${ifindex} of ${address}`, where: "the host's namespace" });
  const owner = await linkOwnerOf(place, link);
  if (isLinkOf(link, owner, address)) return link;
  throw new NetdevError({ kind: "not-its-link", vf: address, link: link.name, ifindex, owner: owner.text });
}

/** Another link was found where the VF's should be. */
export function isForeignLink(error: unknown): error is NetdevError {
  return error instanceof NetdevError && error.fault.kind === "not-its-link";
}
