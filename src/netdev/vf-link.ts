// A VF's link that goes and comes back: a driver that is reset or bound again makes another one, with another index.

import type { LinkPlace } from "../kernel/index.ts";
import { KernelError, type Link } from "../kernel/index.ts";
import type { LinkIdentity } from "./attachment-state.ts";
import { NetdevError } from "./error.ts";
import { findInHost } from "./move.ts";
import type { Patience } from "./transient.ts";
import { isOwnLink, type VfIdentity } from "./verify-link.ts";

/** The link of a VF in the host's namespace, looked up by its PCI function. */
export interface VfLink {
  /** Its index now; undefined while it is not there. */
  index(): Promise<number | undefined>;
  /** Whether one may come: the VF is there, bound to its kernel driver. */
  mayCome(): Promise<boolean>;
  /** Tells the VF from another one that is made in its place, across boots; undefined where nothing does, or it is gone. */
  device(): Promise<string | undefined>;
}

/** What was kept is of a VF that has gone, and another one has its address: it means nothing for that one. */
export async function isOtherDevice(
  vfLink: Pick<VfLink, "device">,
  { device }: { readonly device?: string | undefined },
): Promise<boolean> {
  if (device === undefined) return false; // an older forwarder has kept it
  const now = await vfLink.device();
  return now !== undefined && now !== device;
}

/** The link is not where it was. */
export function isVanished(error: unknown): boolean {
  if (error instanceof NetdevError) return error.fault.kind === "gone";
  return error instanceof KernelError && error.code === "ENODEV";
}

/** The link in the host: by its VF where that can be looked up, else by what it was. */
export async function hostLinkOf(
  host: LinkPlace,
  identity: LinkIdentity,
  { of, vfLink }: { readonly of: VfIdentity; readonly vfLink: VfLink },
): Promise<Link | undefined> {
  const index = await vfLink.index();
  const link = index === undefined ? undefined : await host.rtnl.linkByIndex(index);
  return link && (await isOwnLink(host, link, of)) ? link : await findInHost(host, identity, of);
}

/** Waits until the VF has a link in the host. Undefined when its driver will make none. @throws {NetdevError} busy. */
export function awaitInHost(
  host: LinkPlace,
  identity: LinkIdentity,
  { of, vfLink, patience }: { readonly of: VfIdentity; readonly vfLink: VfLink; readonly patience: Patience },
): Promise<Link | undefined> {
  return patience.until("find the VF's link in the host's namespace", async () => {
    const link = await hostLinkOf(host, identity, { of, vfLink });
    return link !== undefined || !(await vfLink.mayCome()) ? { done: link } : "that there is none";
  });
}
