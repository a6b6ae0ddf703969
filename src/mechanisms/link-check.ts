// Whether the link that sysfs has for a VF is the VF's: asked of the kernel, in the host's namespace.
import type { LinkOwnerOf, Netns, OpenRtnl } from "../kernel/index.ts";
import { NetdevError, verifiedLink } from "../netdev/index.ts";
import type { DriverBinder, PciAddress } from "../pci/index.ts";

export interface LinkCheckParts {
  /** The host's namespace. */
  readonly host: Netns;
  readonly openRtnl: OpenRtnl;
  readonly linkOwnerOf: LinkOwnerOf;
}

/** @throws {NetdevError} gone, not-its-link. */
export async function verifyVfLink(parts: LinkCheckParts, address: PciAddress, ifindex: number): Promise<void> {
  const { host: netns, openRtnl, linkOwnerOf } = parts;
  const rtnl = openRtnl(netns);
  try {
    await verifiedLink({ netns, rtnl }, ifindex, { address, linkOwnerOf });
  } finally {
    rtnl.close();
  }
}

/** Another link stood where the VF's should be. */
export function isForeignLink(error: unknown): error is NetdevError {
  return error instanceof NetdevError && error.fault.kind === "not-its-link";
}

/** For a VF that was withheld because another link stood in its place: whether that is over. */
export async function hasOwnLink(
  parts: LinkCheckParts & { readonly binder: Pick<DriverBinder, "netdevNow"> },
  address: PciAddress,
): Promise<boolean> {
  const netdev = await parts.binder.netdevNow(address);
  if (!netdev) return false;
  await verifyVfLink(parts, address, netdev.ifindex);
  return true;
}
