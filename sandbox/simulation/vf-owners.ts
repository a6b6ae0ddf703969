import type { Netns } from "../../src/kernel/index.ts";
import type { Machine } from "../machine/machine.ts";
import type { MemoryCgroups } from "./memory-access.ts";
import type { MemoryLinks } from "./memory-links.ts";

/** What of a simulated node tells who can use a VF. */
export interface OwnedNode {
  readonly machine: Pick<Machine, "vfioDeviceOf">;
  readonly links: MemoryLinks;
  readonly cgroups: MemoryCgroups;
}

/** A pod, as its VF's owner. */
export interface OwningPod {
  readonly netns: Netns;
  readonly allocation: { readonly podUid: string };
}

/** Which pods can use the VF at this moment: one at most, whatever is under way. A pod that may open it no more may still have it open. */
export function ownersOf({ machine, links, cgroups }: OwnedNode, vf: string): readonly string[] {
  const owners = new Set<string>();
  const where = links.whereIs(vf)?.space;
  if (where && where !== links.host) owners.add(namespaceOwner(where.key));
  const device = machine.vfioDeviceOf(vf);
  if (device) for (const uid of cgroups.usersOf(device)) owners.add(podOwner(uid));
  return [...owners];
}

/** Whether the pod can use the VF at this moment. */
export function isOwner({ netns, allocation }: OwningPod, node: OwnedNode, vf: string): boolean {
  const names = [namespaceOwner(`${netns.id.dev}/${netns.id.ino}`), podOwner(allocation.podUid)];
  return ownersOf(node, vf).some((owner) => names.includes(owner));
}

function namespaceOwner(key: string): string {
  return `namespace ${key}`;
}

function podOwner(uid: string): string {
  return `pod ${uid}`;
}
