import type { PciAddress, VfFacts, VfUse } from "../pci/index.ts";
import type { VfState } from "./inventory-form.ts";
import { tokenId } from "./token-id.ts";
import type { VfConditions } from "./vf-conditions.ts";

/** Who holds a VF. */
export interface Holder {
  readonly connectionId: string;
  /** Connections of one owner, a pod, may share an IOMMU group under VFIO. */
  readonly owner: string;
  readonly use: VfUse;
  phase: Extract<VfState, "preparing" | "ready" | "reclaiming">;
}

/** The inventory's own, changing entry of one VF. */
export interface Vf {
  facts: VfFacts;
  readonly conditions: VfConditions;
  holder: Holder | undefined;
  /** The token that reserves it, or under which it is held. */
  token: Token | undefined;
  /** For each resource, the node's own token that is assigned to this VF now. */
  readonly standIns: Map<string, Token>;
}

/** One device id. */
export interface Token {
  readonly id: string;
  readonly resource: string;
  /** The VF its id was made from; undefined for one that an older forwarder made, or whose VF is not there yet. */
  ownVf: PciAddress | undefined;
  /** The VF it is assigned to now: its own, unless that was unfit when it was requested. */
  vf: Vf | undefined;
  /** Kubelet has given it to a pod. */
  allocated: boolean;
  /** As what it was published last; undefined before. */
  shownHealthy: boolean | undefined;
}

/**
 * The device ids of the node. For each resource the ids made here and the VFs that offer it form pairs; pairs may
 * swap partners, so that a token whose own VF is unfit is assigned to another one and no VF is counted twice.
 */
export class TokenAssignments {
  readonly #namespace: string;
  readonly #byId = new Map<string, Token>();
  readonly #byResource = new Map<string, Set<Token>>();

  /** @param namespace see `tokenId`. */
  constructor(namespace: string) {
    this.#namespace = namespace;
  }

  get(id: string): Token | undefined {
    return this.#byId.get(id);
  }

  ofResource(resource: string): Iterable<Token> {
    return this.#byResource.get(resource) ?? [];
  }

  get resources(): readonly string[] {
    return [...this.#byResource.keys()];
  }

  /** Adds a token for each resource of a new VF. */
  addVf(vf: Vf): void {
    for (const resource of vf.facts.resources) {
      const id = tokenId(this.#namespace, vf.facts.address, resource);
      const known = this.#byId.get(id);
      // An id of the same VF may have outlived it in a pod's hands, or was in a pod's hands before it came.
      if (known) this.#pairWithOwnVf(known, vf.facts.address);
      else
        this.#add({ id, resource, ownVf: vf.facts.address, vf: undefined, allocated: false, shownHealthy: undefined });
    }
  }

  /** It is one of the pairs from now on; `settle` finds the partner that it takes the place of another one. */
  #pairWithOwnVf(token: Token, ownVf: PciAddress): void {
    if (token.ownVf !== undefined) return;
    token.ownVf = ownVf;
    const { vf, resource } = token;
    token.vf = undefined;
    if (vf?.token !== token) return;
    const partner = vf.standIns.get(resource);
    if (partner) partner.vf = undefined;
    pair(token, vf);
  }

  /** Adds an id that was not made here. */
  addForeign(id: string, resource: string): Token {
    return this.#add({ id, resource, ownVf: undefined, vf: undefined, allocated: false, shownHealthy: undefined });
  }

  #add(token: Token): Token {
    this.#byId.set(token.id, token);
    const same = this.#byResource.get(token.resource) ?? new Set();
    this.#byResource.set(token.resource, same.add(token));
    return token;
  }

  #remove(token: Token): void {
    this.#byId.delete(token.id);
    const same = this.#byResource.get(token.resource);
    same?.delete(token);
    if (same?.size === 0) this.#byResource.delete(token.resource);
  }

  /** Assigns the token to another VF; the token of that one takes over the former. */
  move(token: Token, to: Vf): void {
    const from = token.vf;
    if (from === to) return;
    if (from?.token === token) from.token = undefined;
    token.vf = to;
    if (token.ownVf === undefined) return; // not one of the pairs
    const partner = to.standIns.get(token.resource);
    to.standIns.set(token.resource, token);
    if (partner) partner.vf = from;
    if (from && partner) from.standIns.set(token.resource, partner);
    else from?.standIns.delete(token.resource);
  }

  /**
   * Pairs the unused tokens of a resource again, own VFs first, and forgets those that are of no use any more. For rare
   * events: VFs came or went, or a token that had swapped is free again.
   * @param vfs every VF of the inventory, by address.
   */
  settle(resource: string, vfs: ReadonlyMap<PciAddress, Vf>): void {
    const offering = [...vfs.values()].filter((vf) => isOffering(vf, resource));
    for (const vf of vfs.values()) {
      const token = vf.standIns.get(resource);
      if (!token || vf.token === token) continue;
      vf.standIns.delete(resource);
      token.vf = undefined;
    }
    const unused = [...this.ofResource(resource)].filter((token) => !isUsed(token));
    const waiting: Token[] = [];
    for (const token of unused) {
      token.vf = undefined;
      const own = token.ownVf && vfs.get(token.ownVf);
      if (!own || !isOffering(own, resource)) this.#remove(token);
      else if (own.standIns.has(resource)) waiting.push(token);
      else pair(token, own);
    }
    const alone = offering.filter((vf) => !vf.standIns.has(resource));
    for (const token of waiting) {
      const vf = alone.shift();
      if (vf) pair(token, vf);
    }
  }
}

/** All that are assigned to the VF: one of each resource, and the one of an older forwarder that a pod may have beside them. */
export function tokensOf({ standIns, token }: Vf): readonly Token[] {
  return token && token.ownVf === undefined ? [...standIns.values(), token] : [...standIns.values()];
}

/** Not so of a VF that lost the resource by a new list of PFs: who has it by a token of that resource keeps it. */
export function isOffering({ facts }: Vf, resource: string): boolean {
  return facts.resources.includes(resource);
}

/** Whether kubelet or a connection holds the token. */
export function isUsed(token: Token): boolean {
  return token.allocated || token.vf?.token === token;
}

function pair(token: Token, vf: Vf): void {
  token.vf = vf;
  vf.standIns.set(token.resource, token);
}
