// Which VF a token gets: its own one, or the best of the others of its resource.
import type { PciAddress } from "../pci/index.ts";
import { chooseVf, unfitBecause, type VfRequest } from "./choose.ts";
import { isOfferable } from "./device-view.ts";
import { InventoryError } from "./inventory-fault.ts";
import type { Token, Vf } from "./token-assignments.ts";
import type { VfIndex } from "./vf-index.ts";

export class VfChoice {
  readonly #index: VfIndex;

  constructor(index: VfIndex) {
    this.#index = index;
  }

  isFit(vf: Vf | undefined, token: Token | undefined, request: VfRequest): vf is Vf {
    return vf !== undefined && this.#unfitBecause(vf, token, request) === undefined;
  }

  /** @throws {InventoryError} no-free-vf, with what keeps each one from it. */
  ownOrOther(token: Token, request: VfRequest): Vf {
    if (this.isFit(token.vf, token, request)) return token.vf;
    const vf = this.other(request);
    if (vf) return vf;
    const because: Record<string, number> = {};
    const offering = this.#index.offering(request.resource);
    for (const candidate of offering) {
      const why = this.#unfitBecause(candidate, token, request) ?? "free";
      because[why] = (because[why] ?? 0) + 1;
    }
    const { resource, use } = request;
    throw new InventoryError({ kind: "no-free-vf", resource, use, total: offering.length, because });
  }

  other(request: VfRequest): Vf | undefined {
    const fit = this.#index.offering(request.resource).filter((vf) => this.isFit(vf, undefined, request));
    const { groupOf } = this.#index;
    const freeOn = (pf: PciAddress) => [...this.#index.onPf(pf)].filter((vf) => isOfferable(vf, groupOf)).length;
    return chooseVf(fit, request, { groupOf, freeOn });
  }

  #unfitBecause(vf: Vf, token: Token | undefined, request: VfRequest): string | undefined {
    if (vf.token && vf.token !== token && !vf.holder) return "reserved";
    return unfitBecause(vf, request, this.#index.groupOf);
  }
}
