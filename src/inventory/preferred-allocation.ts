import type { PciAddress } from "../pci/index.ts";
import { compareRanks } from "./rank.ts";

/** What `preferredAllocation` knows of one device. */
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
 * Device ids that fit together: on one NUMA node where that can be, spread over PFs, and whole IOMMU
 * groups before parts of others. Ids without a place come last. Fewer than `size` when fewer are available.
 */
export function preferredAllocation(
  request: PreferenceRequest,
  placementOf: (id: string) => Placement | undefined,
): string[] {
  const chosen = new Map([...new Set(request.mustInclude)].map((id) => [id, placementOf(id)]));
  const left = new Map(request.available.filter((id) => !chosen.has(id)).map((id) => [id, placementOf(id)]));
  const node = bestNode([...left.values()], [...chosen.values()], request.size - chosen.size);
  const taken = new Tally(chosen.values());
  const free = new Tally(left.values());
  const cost = (place: Placement | undefined): readonly number[] => {
    if (!place) return [1, 0, 0, 0, 0];
    const begun = taken.inGroupOf(place) > 0;
    return [0, place.numaNode === node ? 0 : 1, begun ? 0 : 1, taken.onPfOf(place), free.inGroupOf(place) || 1];
  };
  while (chosen.size < request.size) {
    const best = cheapest(left, cost);
    if (best === undefined) break;
    const place = left.get(best);
    left.delete(best);
    chosen.set(best, place);
    free.count(place, -1);
    taken.count(place, 1);
  }
  return [...chosen.keys()];
}

function cheapest(
  left: ReadonlyMap<string, Placement | undefined>,
  costOf: (place: Placement | undefined) => readonly number[],
): string | undefined {
  let best: { readonly id: string; readonly cost: readonly number[] } | undefined;
  for (const [id, place] of left) {
    const cost = costOf(place);
    if (best === undefined || compareRanks(cost, best.cost) < 0) best = { id, cost };
  }
  return best?.id;
}

/** How many devices lie on each PF and in each IOMMU group: counted once, not for each candidate. */
class Tally {
  readonly #byPf = new Map<PciAddress, number>();
  readonly #byGroup = new Map<number, number>();

  constructor(places: Iterable<Placement | undefined>) {
    for (const place of places) this.count(place, 1);
  }

  count(place: Placement | undefined, change: 1 | -1): void {
    if (!place) return;
    const { pf, iommuGroup } = place;
    this.#byPf.set(pf, this.onPfOf(place) + change);
    if (iommuGroup !== undefined) this.#byGroup.set(iommuGroup, this.inGroupOf(place) + change);
  }

  onPfOf({ pf }: Placement): number {
    return this.#byPf.get(pf) ?? 0;
  }

  /** 0 without an IOMMU. */
  inGroupOf({ iommuGroup }: Placement): number {
    return iommuGroup === undefined ? 0 : (this.#byGroup.get(iommuGroup) ?? 0);
  }
}

/** The NUMA node that can give most of what is desired; among equals the one where most of the chosen are. */
function bestNode(
  left: readonly (Placement | undefined)[],
  chosen: readonly (Placement | undefined)[],
  desired: number,
): number | undefined {
  const count = (places: readonly (Placement | undefined)[], node: number | undefined) =>
    places.filter((place) => place !== undefined && place.numaNode === node).length;
  const nodes = [...new Set(left.flatMap((place) => (place ? [place.numaNode] : [])))];
  const ranked = nodes.map((node) => ({
    node,
    rank: [
      -count(chosen, node),
      -Math.min(count(left, node), desired),
      count(left, node), // the fuller node stays whole for others
      node ?? Number.MAX_SAFE_INTEGER,
    ],
  }));
  return ranked.sort((a, b) => compareRanks(a.rank, b.rank))[0]?.node;
}
