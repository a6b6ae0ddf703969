import type { PciAddress } from "./address.ts";
import { compareRanks } from "./rank.ts";

/** What `preferDevices` knows of one device. */
export interface Placement {
  readonly numaNode: number | undefined;
  readonly pf: PciAddress;
  readonly iommuGroup: number | undefined;
}

/** A kubelet question: which of the available devices go best together. */
export interface PreferenceRequest {
  readonly available: readonly string[];
  /** Part of the answer in any case. */
  readonly mustInclude: readonly string[];
  readonly size: number;
}

/**
 * Device ids that fit together: on one NUMA node where that can be, spread over physical functions, and whole IOMMU
 * groups before parts of others. Ids nobody knows come last. Fewer than `size` when fewer are available.
 */
export function preferDevices(
  request: PreferenceRequest,
  placementOf: (id: string) => Placement | undefined,
): string[] {
  const chosen = [...new Set(request.mustInclude)];
  const left = new Set(request.available.filter((id) => !chosen.includes(id)));
  const node = bestNode([...left], { chosen, placementOf, wanted: request.size - chosen.length });
  while (chosen.length < request.size && left.size > 0) {
    const taken = chosen.map(placementOf);
    const cost = (id: string): readonly number[] => {
      const place = placementOf(id);
      if (!place) return [1, 0, 0, 0];
      const grouped = place.iommuGroup !== undefined;
      const begun = grouped && taken.some((other) => other?.iommuGroup === place.iommuGroup);
      const groupLeft = grouped ? [...left].filter((o) => placementOf(o)?.iommuGroup === place.iommuGroup).length : 1;
      const onPf = taken.filter((other) => other?.pf === place.pf).length;
      return [0, place.numaNode === node ? 0 : 1, begun ? 0 : 1, onPf, groupLeft];
    };
    const ranked = [...left].map((id) => ({ id, cost: cost(id) })).sort((a, b) => compareRanks(a.cost, b.cost));
    const [best] = ranked;
    if (!best) break;
    chosen.push(best.id);
    left.delete(best.id);
  }
  return chosen;
}

/** The NUMA node that can give most of what is wanted; among equals the one where most of the chosen are. */
function bestNode(
  left: readonly string[],
  known: {
    readonly chosen: readonly string[];
    readonly placementOf: (id: string) => Placement | undefined;
    readonly wanted: number;
  },
): number | undefined {
  const count = (ids: readonly string[], node: number | undefined) =>
    ids.filter((id) => known.placementOf(id)?.numaNode === node).length;
  const nodes = [...new Set(left.map((id) => known.placementOf(id)?.numaNode))];
  const ranked = nodes.map((node) => ({
    node,
    rank: [
      -count(known.chosen, node),
      -Math.min(count(left, node), known.wanted),
      count(left, node), // the fuller node stays whole for others
      node ?? Number.MAX_SAFE_INTEGER,
    ],
  }));
  return ranked.sort((a, b) => compareRanks(a.rank, b.rank))[0]?.node;
}
