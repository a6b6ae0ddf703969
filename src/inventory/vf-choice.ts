// Which VF a token gets: its own one, or the best of the others of its resource.
import type { PciAddress } from "../pci/index.ts";
import { chooseVf, unfitBecause, type Wish } from "./choose.ts";
import { isOfferable } from "./device-view.ts";
import { InventoryError } from "./inventory-fault.ts";
import type { Token, Vf } from "./token-assignments.ts";
import type { VfIndex } from "./vf-index.ts";

export class VfChoice {
  readonly #index: VfIndex;

  constructor(index: VfIndex) {
    this.#index = index;
  }

  isFit(vf: Vf | undefined, token: Token | undefined, wish: Wish): vf is Vf {
    return vf !== undefined && this.#unfitBecause(vf, token, wish) === undefined;
  }

  /** @throws {InventoryError} no-free-vf, with what keeps each one from it. */
  ownOrOther(token: Token, wish: Wish): Vf {
    if (this.isFit(token.vf, token, wish)) return token.vf;
    const vf = this.other(wish);
    if (vf) return vf;
    const because: Record<string, number> = {};
    const offering = this.#index.offering(wish.resource);
    for (const candidate of offering) {
      const why = this.#unfitBecause(candidate, token, wish) ?? "free";
      because[why] = (because[why] ?? 0) + 1;
    }
    const { resource, use } = wish;
    throw new InventoryError({ kind: "no-free-vf", resource, use, total: offering.length, because });
  }

  other(wish: Wish): Vf | undefined {
    const fit = this.#index.offering(wish.resource).filter((vf) => this.isFit(vf, undefined, wish));
    const { groupOf } = this.#index;
    const freeOn = (pf: PciAddress) => [...this.#index.onPf(pf)].filter((vf) => isOfferable(vf, groupOf)).length;
    return chooseVf(fit, wish, { groupOf, freeOn });
  }

  #unfitBecause(vf: Vf, token: Token | undefined, wish: Wish): string | undefined {
    if (vf.token && vf.token !== token && !vf.holder) return "reserved";
    return unfitBecause(vf, wish, this.#index.groupOf);
  }
}
