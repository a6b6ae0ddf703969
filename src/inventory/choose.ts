import type { PciAddress, VfUse } from "../pci/index.ts";
import { compareRanks } from "./rank.ts";
import type { Vf } from "./token-assignments.ts";
import { describeCondition, isBeingRestored } from "./vf-condition.ts";

/** What a VF is needed for. Without a use it is only to be reserved. */
export interface VfRequest {
  readonly resource: string;
  readonly use: VfUse | undefined;
  readonly owner: string;
}

/** VFs that share an IOMMU group with this one, itself included; none but itself without an IOMMU. */
export type GroupOf = (vf: Vf) => ReadonlySet<Vf>;

/** In words that say that it is over soon. */
export const BEING_CLEANED = "being cleaned after the last client";

/** The same. */
export const BEING_RESTORED = "being restored to what the host had set";

/** VFIO, a kernel driver, or neither: what the bound driver makes of the VF. */
export function driverUse({ driver, kernelDriver }: Vf["facts"]): VfUse | "none" {
  if (driver === "vfio-pci") return "vfio";
  return driver === kernelDriver ? "kernel" : "none";
}

/** Why a VF that no connection holds cannot serve the request, in words that can be counted; undefined when it can. */
export function unfitBecause(vf: Vf, request: Pick<VfRequest, "use" | "owner">, groupOf: GroupOf): string | undefined {
  const { conditions } = vf;
  const isRestored = isBeingRestored(conditions.all);
  if (conditions.first("quarantine") && !isRestored) return "quarantined";
  // First where no connection holds it: a Request waits for what is being cleaned, and what the host uses is not cleaned meanwhile.
  const kept = keptBecause(vf);
  if (kept && !vf.holder) return kept;
  // By the time that a pod comes with the token it is clean.
  if (isRestored && request.use !== undefined) return BEING_RESTORED;
  if (conditions.first("reclaim") && request.use !== undefined) return BEING_CLEANED;
  if (vf.holder) return kept ?? "in use";
  if (request.use === "vfio" && vf.facts.iommuGroup === undefined) return "without an IOMMU group";
  if (request.use === "vfio" && vf.facts.vfioProblem !== undefined) return `unfit for VFIO (${vf.facts.vfioProblem})`;
  return unfitBesides(groupOf(vf), request);
}

/** Ill, or the host's. Only the former says something of a VF that a connection holds. */
function keptBecause({ conditions, facts, holder }: Vf): string | undefined {
  const unhealthy = conditions.first("unhealthy");
  if (unhealthy) return `unhealthy (${describeCondition(unhealthy)})`;
  const withheld = holder ? undefined : conditions.first("withhold");
  return withheld && `withheld, for the host uses it (${facts.address}: ${describeCondition(withheld)})`;
}

/** Why the VF must not be touched, in words. */
function untouchableBecause({ conditions, holder }: Vf): string | undefined {
  if (conditions.has("gone")) return undefined;
  if (conditions.first("quarantine")) return isBeingRestored(conditions.all) ? BEING_RESTORED : "quarantined";
  // What is being cleaned is waited for, but not while the host uses it.
  if (!holder && conditions.first("withhold")) return undefined;
  return conditions.first("reclaim") && BEING_CLEANED;
}

/** What the other VFs of its IOMMU group keep it from. */
function unfitBesides(group: ReadonlySet<Vf>, request: Pick<VfRequest, "use" | "owner">): string | undefined {
  for (const other of group) {
    const { holder, facts, conditions } = other;
    // The group goes to VFIO as a whole, and what is quarantined must not be touched.
    const untouchable = request.use === "vfio" ? untouchableBecause(other) : undefined;
    if (untouchable) return `in an IOMMU group of which ${facts.address} is ${untouchable}`;
    const withheld = request.use === "vfio" && !holder ? conditions.first("withhold") : undefined;
    if (withheld) return `in an IOMMU group of which the host uses ${facts.address} (${describeCondition(withheld)})`;
    if (!holder) continue;
    if (request.use === "vfio" && holder.use === "kernel") {
      return `in an IOMMU group that serves a kernel driver (${facts.address})`;
    }
    if (holder.use === "vfio" && (request.use === "kernel" || holder.owner !== request.owner)) {
      return `in an IOMMU group that another pod has (${facts.address})`;
    }
  }
  return undefined;
}

/**
 * The best of several fit VFs, in upstream's order: group already in the desired use, more free VFs on its
 * PF, address. Between these: under VFIO no VF of the group promised to another pod, and the
 * desired driver already bound, which spares a rebind.
 */
export function chooseVf(
  fit: readonly Vf[],
  request: VfRequest,
  around: { readonly groupOf: GroupOf; readonly freeOn: (pf: PciAddress) => number },
): Vf | undefined {
  const rank = (vf: Vf): readonly number[] => {
    const others = [...around.groupOf(vf)].filter((other) => other !== vf);
    const sameUse = request.use !== undefined && others.some(({ holder }) => holder?.use === request.use);
    const promised = request.use === "vfio" ? others.filter(({ token, holder }) => token && !holder).length : 0;
    const bound = request.use !== undefined && driverUse(vf.facts) === request.use;
    return [sameUse ? 0 : 1, promised, -around.freeOn(vf.facts.pf), bound ? 0 : 1];
  };
  const ranked = fit.map((vf) => ({ vf, rank: rank(vf) }));
  ranked.sort((a, b) => compareRanks(a.rank, b.rank) || (a.vf.facts.address < b.vf.facts.address ? -1 : 1));
  return ranked[0]?.vf;
}
