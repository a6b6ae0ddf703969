import type { LinkPlace } from "../kernel/index.ts";
import { KernelError, type Link } from "../kernel/index.ts";
import type { LinkIdentity } from "./attachment-state.ts";
import { NetdevError } from "./error.ts";
import { isOwnLink, type VfIdentity, verifiedLink } from "./verify-link.ts";

/**
 * Checks before anything is touched whether the name is free in the client's namespace.
 * @throws {NetdevError} of kind "name-taken".
 */
export async function checkNameFree(client: LinkPlace, name: string): Promise<void> {
  const holder = await client.rtnl.linkByName(name);
  if (!holder) return;
  const alias = holder.name === name ? "" : ", as an alternative name";
  throw new NetdevError({ kind: "name-taken", name, by: `link ${holder.name} (index ${holder.index}${alias})` });
}

/**
 * Moves a link from the host into a namespace, where it is down and called by its temporary name.
 * Its alternative names stay behind: one that the namespace has already would stop the move (EEXIST), and they are the
 * host's own. Answers its index there.
 */
export async function moveIn(
  host: LinkPlace,
  client: LinkPlace,
  identity: LinkIdentity,
  vf: VfIdentity,
): Promise<number> {
  const { original, temporaryName } = identity;
  // One that a driver has made again has other names than the one before.
  const { altNames } = await verifiedLink(host, original.index, vf);
  await host.rtnl.setLink(original.index, { removeAltNames: altNames });
  await host.rtnl.setLink(original.index, { netns: client.netns, name: temporaryName });
  const named = await client.rtnl.linkByName(temporaryName);
  const moved = named && (await isOwnLink(client, named, vf)) ? named : await search(client, vf);
  if (!moved) throw new NetdevError({ kind: "gone", link: original.name, where: "the client's namespace" });
  return moved.index;
}

/** The VF's link in the client's namespace. The pod may have renamed it; the device beneath stays the same. */
export async function findInClient(
  client: LinkPlace,
  { clientIndex }: LinkIdentity,
  vf: VfIdentity,
): Promise<Link | undefined> {
  const known = clientIndex === undefined ? undefined : await client.rtnl.linkByIndex(clientIndex);
  if (known && (await isOwnLink(client, known, vf))) return known;
  return await search(client, vf);
}

/**
 * The VF's link in the host: not moved yet, being restored, or put there by the kernel when the client's namespace died
 * (under the name it had there, or as "dev<index>").
 */
export async function findInHost(
  host: LinkPlace,
  { original, temporaryName }: LinkIdentity,
  vf: VfIdentity,
): Promise<Link | undefined> {
  const onTheWay = await host.rtnl.linkByName(temporaryName);
  if (onTheWay && (await isOwnLink(host, onTheWay, vf))) return onTheWay;
  const known = await host.rtnl.linkByIndex(original.index);
  if (known && (await isOwnLink(host, known, vf))) return known;
  return await search(host, vf);
}

/** @throws {KernelError} EAGAIN when it may be one of which the kernel cannot say just now whose it is. */
async function search(place: LinkPlace, vf: VfIdentity): Promise<Link | undefined> {
  let unknown: KernelError | undefined;
  for (const link of await place.rtnl.links()) {
    try {
      if (await isOwnLink(place, link, vf)) return link;
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      if (error.code !== "ENODEV") unknown = error; // Who has gone meanwhile is not the one.
    }
  }
  if (unknown) throw unknown;
  return undefined;
}
