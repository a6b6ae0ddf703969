import type { PciAddress, VfFacts } from "../pci/index.ts";
import { isOffering, type Vf } from "./token-assignments.ts";
import { VfConditions } from "./vf-conditions.ts";

const none: ReadonlySet<Vf> = new Set();

/** The VFs of the node, findable by address, PF and IOMMU group. */
export class VfIndex {
  readonly #all = new Map<PciAddress, Vf>();
  readonly #byPf = new Map<PciAddress, Set<Vf>>();
  readonly #groups = new Map<number, Set<Vf>>();
  readonly #groupsBefore = new Map<PciAddress, number>();

  /** By address, in the order they were found. */
  get all(): ReadonlyMap<PciAddress, Vf> {
    return this.#all;
  }

  get(address: PciAddress): Vf | undefined {
    return this.#all.get(address);
  }

  onPf(pf: PciAddress): ReadonlySet<Vf> {
    return this.#byPf.get(pf) ?? none;
  }

  /** The VFs that share its IOMMU group, itself included; itself alone without an IOMMU. */
  readonly groupOf = (vf: Vf): ReadonlySet<Vf> => {
    const { iommuGroup } = vf.facts;
    return (iommuGroup === undefined ? undefined : this.#groups.get(iommuGroup)) ?? new Set([vf]);
  };

  /** Every VF that offers the resource: work that grows with their number. */
  offering(resource: string): readonly Vf[] {
    return [...this.#all.values()].filter((vf) => isOffering(vf, resource));
  }

  /** Adds a VF, or brings a known one up to date; present in both cases. */
  put(facts: VfFacts): Vf {
    const known = this.#all.get(facts.address);
    if (known) this.#unindex(known);
    const vf: Vf = known ?? {
      facts,
      conditions: new VfConditions(),
      holder: undefined,
      token: undefined,
      standIns: new Map(),
    };
    vf.facts = facts;
    vf.conditions.clear("gone");
    this.#noteGroup(vf);
    this.#all.set(facts.address, vf);
    addTo(this.#byPf, facts.pf, vf);
    if (facts.iommuGroup !== undefined) addTo(this.#groups, facts.iommuGroup, vf);
    return vf;
  }

  /** A VF without its group could reach the memory of others; that it had one is known even where it was away meanwhile. */
  #noteGroup({ facts, conditions }: Vf): void {
    const group = this.#groupsBefore.get(facts.address);
    if (facts.iommuGroup !== undefined) {
      this.#groupsBefore.set(facts.address, facts.iommuGroup);
      conditions.clear("iommu-group-lost");
    } else if (group !== undefined) conditions.raise({ code: "iommu-group-lost", group });
  }

  remove(vf: Vf): void {
    this.#unindex(vf);
    this.#all.delete(vf.facts.address);
  }

  #unindex(vf: Vf): void {
    const { pf, iommuGroup } = vf.facts;
    removeFrom(this.#byPf, pf, vf);
    if (iommuGroup !== undefined) removeFrom(this.#groups, iommuGroup, vf);
  }
}

function addTo<K>(index: Map<K, Set<Vf>>, key: K, vf: Vf): void {
  index.set(key, (index.get(key) ?? new Set()).add(vf));
}

function removeFrom<K>(index: Map<K, Set<Vf>>, key: K, vf: Vf): void {
  const set = index.get(key);
  set?.delete(vf);
  if (set?.size === 0) index.delete(key);
}
