// VFs that the Go original let a pod open by VFIO, found by its rules in the pod's cgroups, and taken over by the pod's Request:
// docs/decisions/054. Version 1 alone: on version 2 it writes none.
import type { DeviceAccess, WrittenRule } from "../../access/index.ts";
import { conditionOf, type Inventory, InventoryError, type VfCondition, type VfRecord } from "../../inventory/index.ts";
import type { TokenPod } from "../../kubelet/index.ts";
import type { DesiredVfio } from "../../nsm/index.ts";

/** It allows `rwm`, ours `rw`. */
export function isOfOriginal({ access }: WrittenRule): boolean {
  return [..."rwm"].every((letter) => access.includes(letter));
}

/** What a pod has, noted in the inventory as its connection's. */
export interface FoundVfio {
  readonly vf: VfRecord;
  /** As it was, for when nothing comes of the connection. */
  readonly was: VfCondition;
}

/**
 * The VF that the token's pod has by VFIO, unless a connection holds it. Undefined where there is none. Touches nothing.
 * @throws {InventoryError} several-found.
 */
export function takeFoundVfio(
  inventory: Inventory,
  pod: TokenPod | undefined,
  { connectionId, desired }: { readonly connectionId: string; readonly desired: DesiredVfio },
): FoundVfio | undefined {
  const { tokenId, pciAddress } = desired;
  const resource = inventory.resourceOf(tokenId);
  if (!pod || resource === undefined) return undefined;
  const its = inventory.snapshot().filter((vf) => {
    const isFree = vf.connectionId === undefined && vf.resources.includes(resource);
    return isFree && conditionOf(vf, "open-to-pod")?.pods.includes(pod.uid);
  });
  const vf = oneOf(its, pciAddress);
  const was = vf && conditionOf(vf, "open-to-pod");
  if (!vf || !was) return undefined;
  const request = { connectionId, tokenId, use: "vfio", owner: pod.uid } as const;
  try {
    inventory.adopt({ ...request, address: vf.address, state: "preparing" });
  } catch (error) {
    if (error instanceof InventoryError) return undefined; // who takes it now gets told why not
    throw error;
  }
  inventory.clear(vf.address, "open-to-pod");
  return { vf, was };
}

/** What the original left in the cgroups of pods that are gone is another pod's by now, perhaps: the one alone is surest. */
function oneOf(its: readonly VfRecord[], pciAddress: string | undefined): VfRecord | undefined {
  const named = its.find(({ address }) => address === pciAddress);
  if (named || its.length <= 1) return named ?? its[0];
  const alone = its.filter((vf) => conditionOf(vf, "open-to-pod")?.pods.length === 1);
  if (alone.length === 1) return alone[0];
  throw new InventoryError({ kind: "several-found", addresses: its.map(({ address }) => address) });
}

/** The original's rules in the cgroups of a pod, for the devices. */
export async function rulesOfOriginal(
  access: Pick<DeviceAccess, "rulesOf">,
  uid: string,
  devices: Parameters<DeviceAccess["rulesOf"]>[1],
): Promise<readonly WrittenRule[]> {
  return (await access.rulesOf({ uid }, devices)).filter(isOfOriginal);
}
