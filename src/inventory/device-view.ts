// What kubelet is to see of each token, and whose list an event has changed.
import { type GroupOf, unfitBecause } from "./choose.ts";
import type { DeviceView, InventoryChange } from "./inventory-form.ts";
import { type Token, type TokenAssignments, tokensOf, type Vf } from "./token-assignments.ts";
import type { VfIndex } from "./vf-index.ts";
import { isWell } from "./vf-record.ts";

/** No pod and no connection has it, and a pod that got it could use it in at least one way. */
export function isOfferable(vf: Vf, groupOf: GroupOf): boolean {
  if (vf.token || vf.holder || !isWell(vf)) return false;
  return unfitBecause(vf, { use: undefined, owner: "" }, groupOf) === undefined;
}

/**
 * One token as kubelet is to see it: healthy, while no pod has it, as long as its VF could be given out; when a pod has
 * it, as long as nothing is wrong with its VF, whatever its siblings do.
 */
export function viewOf(token: Token, groupOf: GroupOf): DeviceView {
  const { id, allocated, vf } = token;
  return {
    id,
    healthy: isHealthy(token, groupOf),
    allocated,
    numaNode: vf?.facts.numaNode,
    address: vf?.facts.address,
  };
}

function isHealthy(token: Token, groupOf: GroupOf): boolean {
  const { vf, allocated } = token;
  if (vf === undefined) return false;
  return allocated ? isWell(vf) && vf.token === token : isOfferable(vf, groupOf);
}

/**
 * Whose list differs from the one taken last. Most that happens to a VF is none of kubelet's business, and
 * kubelet only takes whole lists: what is touched is compared with what was listed of it.
 */
export class ListNews {
  readonly #vfs: Pick<VfIndex, "groupOf">;
  readonly #tokens: Pick<TokenAssignments, "ofResource">;
  readonly #touched = new Set<Vf>();
  readonly #lists = new Set<string>();

  constructor(functions: Pick<VfIndex, "groupOf">, tokens: Pick<TokenAssignments, "ofResource">) {
    this.#vfs = functions;
    this.#tokens = tokens;
  }

  /** Something has happened to the VF. It may show on those of its IOMMU group, too. */
  of(vf: Vf): void {
    this.#touched.add(vf);
  }

  /** Devices of these resources have come or gone, or are assigned to other VFs than before: rare. */
  ofLists(resources: Iterable<string>): void {
    for (const resource of resources) this.#lists.add(resource);
  }

  /** The VFs that were touched, and resources of which some device differs now; from here on that counts as published. */
  take(): InventoryChange {
    const vfs = new Set([...this.#touched].map(({ facts }) => facts.address));
    const changed = new Set(this.#lists);
    for (const resource of this.#lists) this.#compare(this.#tokens.ofResource(resource), changed);
    for (const vf of this.#touched) {
      this.#compare(tokensOf(vf), changed);
      for (const other of this.#vfs.groupOf(vf)) if (other !== vf) this.#compare(tokensOf(other), changed);
    }
    this.#lists.clear();
    this.#touched.clear();
    return { resources: changed, vfs };
  }

  #compare(tokens: Iterable<Token>, changed: Set<string>): void {
    for (const token of tokens) {
      const healthy = isHealthy(token, this.#vfs.groupOf);
      if (healthy !== token.shownHealthy) changed.add(token.resource);
      token.shownHealthy = healthy;
    }
  }
}
