import type { Machine } from "../machine/machine.ts";
import type { MemoryCgroups } from "./memory-access.ts";
import type { MemoryLinks } from "./memory-links.ts";

/** What of a simulated node tells who can use a VF. */
export interface OwnedNode {
  readonly machine: Pick<Machine, "devices" | "vfio">;
  readonly links: MemoryLinks;
  readonly cgroups: MemoryCgroups;
}

/** Which pods can use the VF now, as the node has it: one, whatever is under way. */
export async function ownersOf({ machine, links, cgroups }: OwnedNode, vf: string): Promise<readonly string[]> {
  const owners = new Set<string>();
  const where = links.whereIs(vf)?.space;
  if (where && where !== links.host) owners.add(`namespace ${where.key}`);
  const group = (await machine.devices.readLink(`${vf}/iommu_group`)).split("/").at(-1) ?? "";
  const node = await machine.vfio.deviceNumber(group).catch(() => undefined); // not bound to vfio-pci
  for (const mark of cgroups.open) if (node && mark.startsWith(`${node.major}:${node.minor} `)) owners.add(mark);
  return [...owners];
}
