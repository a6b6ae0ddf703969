// What is to be done about a function whose book, journal and node differ. Pure: reads nothing, does nothing.

import { conditionOf, type VfRecord } from "../sriov/index.ts";
import type { KeptVf } from "../vf/index.ts";

/** One function as the node, the journal and the recovery have it. */
export interface VfSight {
  readonly record: VfRecord;
  readonly isPresent: boolean;
  readonly driver: string | undefined;
  readonly iommuGroup: number | undefined;
  /** In the host's namespace. */
  readonly hasNetdev: boolean;
  /** The journal has it as touched for a client. */
  readonly kept: KeptVf | undefined;
  /** Kept back since the start, because the node contradicts the journal. */
  readonly isContradicting: boolean;
  /** Kept back, because its network device was in a namespace that nobody knows of. */
  readonly isHidden: boolean;
  /** An earlier process gave it to a pod by VFIO, and the node contradicts the journal. */
  readonly isGranted: boolean;
  /** An earlier process left it with a client that has not come back yet. */
  readonly isUnmet: boolean;
  /** The last look found the same difference between book and node. */
  readonly wasOdd: boolean;
  /** The last look found no network device either. */
  readonly wasMissing: boolean;
  /** It has been given back a moment ago, and something of it is not as it was proven to be. */
  readonly isSpoilt: boolean;
}

export const repairs = [
  /** The events of a change were lost: the whole node is looked at. */
  "look-anew",
  /** Its namespace has ended: its connection is taken down. */
  "end-connection",
  /** What the journal says of it is put back, and it is free. */
  "restore",
  /** Access to it is taken from the pod that had it by VFIO; when nobody has it open, it is free. */
  "take-back",
  /** Somebody has unbound it: its kernel driver gets it again, then it can be restored. */
  "rebind",
  /** It comes from a namespace that nobody knew: nothing of the client stays, and it is free. */
  "clean",
  /** It is free in the book, and in some namespace: nobody may get it. */
  "keep-back",
  /** The node has lost it, and what the journal has of it with it. */
  "forget",
] as const;

export type Repair = (typeof repairs)[number];

/** Whether the book says something else of the function than the node. */
export function isOdd({ record, isPresent, driver, iommuGroup }: VfSight): boolean {
  if (conditionOf(record, "gone")) return false; // whether it comes again, the kernel tells
  return !isPresent || driver !== record.driver || iommuGroup !== record.iommuGroup;
}

/** At most one repair: the next look decides on the next one. What a client has is never touched. */
export function repairOf(sight: VfSight): Exclude<Repair, "forget"> | undefined {
  const { record, hasNetdev } = sight;
  const isUnderWay = record.state === "preparing" || record.state === "reclaiming";
  if (isOdd(sight) && !isUnderWay) return sight.wasOdd ? "look-anew" : undefined;
  if (conditionOf(record, "gone")) return undefined;
  if (record.connectionId !== undefined) return sight.isUnmet && hasNetdev ? "end-connection" : undefined;
  return repairOfUnheld(sight);
}

function repairOfUnheld(sight: VfSight): "take-back" | "clean" | "restore" | "rebind" | "keep-back" | undefined {
  const { record, driver, hasNetdev } = sight;
  if (sight.isGranted) return "take-back";
  if (conditionOf(record, "host-use")) return undefined; // it is the host's now
  const isOnKernelDriver = driver === record.kernelDriver;
  if (sight.isHidden) return hasNetdev || !isOnKernelDriver ? "clean" : undefined;
  const isQuarantined = record.state === "quarantined";
  if (sight.kept) {
    // Whoever else keeps it back has a reason of its own, and says when it is over.
    if (isQuarantined && !sight.isContradicting) return undefined;
    if (hasNetdev && isOnKernelDriver) return "restore";
    return driver === undefined ? "rebind" : undefined;
  }
  if (isQuarantined) return undefined;
  if (sight.isSpoilt) return "restore";
  return isOnKernelDriver && !hasNetdev && sight.wasMissing ? "keep-back" : undefined;
}
