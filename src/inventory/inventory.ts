import type { PciAddress, VfFacts } from "../pci/index.ts";
import type { VfRequest } from "./choose.ts";
import { isOfferable, ListNews, viewOf } from "./device-view.ts";
import { InventoryError } from "./inventory-fault.ts";
import type {
  AdoptRequest,
  DeviceView,
  InventoryChange,
  Reservation,
  TakeRequest,
  VfRecord,
} from "./inventory-form.ts";
import type { Placement } from "./preferred-allocation.ts";
import { type Holder, isOffering, type Token, TokenAssignments, type Vf } from "./token-assignments.ts";
import { VfChoice } from "./vf-choice.ts";
import type { VfCondition, VfConditionCode } from "./vf-condition.ts";
import { VfIndex } from "./vf-index.ts";
import { recordOf } from "./vf-record.ts";

/**
 * The one record of each VF: who may have it, who has it, what is wrong with it, and what kubelet is offered. Pure: it changes no
 * device. Work does not grow with the number of VFs, except where a token's own one is unfit.
 */
export class Inventory {
  readonly #vfs = new VfIndex();
  readonly #choice = new VfChoice(this.#vfs);
  readonly #byConnection = new Map<string, Vf>();
  readonly #listeners = new Set<(change: InventoryChange) => void>();
  readonly #tokens: TokenAssignments;
  readonly #news: ListNews;

  /** @param tokenNamespace a random UUID, made once per node and kept secret. */
  constructor(tokenNamespace: string) {
    this.#tokens = new TokenAssignments(tokenNamespace);
    this.#news = new ListNews(this.#vfs, this.#tokens);
  }

  /** Calls back after every operation that changed something. Returns how to stop. */
  onChange(listener: (change: InventoryChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Takes over what the node says about one PF: new VFs come, known ones are brought up to date,
   * and missing ones go. One that is missing while a pod has it stays, quarantined, until it is given back.
   */
  sync(pf: PciAddress, found: readonly VfFacts[]): void {
    const touched = new Set(found.flatMap(({ resources }) => resources));
    // One that was another PF's so far may offer what that one's do no more.
    for (const { address } of found)
      for (const resource of this.#vfs.get(address)?.facts.resources ?? []) touched.add(resource);
    const here = new Set(found.map(({ address }) => address));
    for (const vf of [...this.#vfs.onPf(pf)]) {
      for (const resource of vf.facts.resources) touched.add(resource);
      this.#news.of(vf);
      if (here.has(vf.facts.address)) continue;
      vf.conditions.raise({ code: "gone" });
      this.#forgetIfGone(vf);
    }
    for (const facts of found) {
      const vf = this.#vfs.put(facts);
      this.#tokens.addVf(vf);
      this.#news.of(vf);
    }
    for (const resource of touched) this.#tokens.settle(resource, this.#vfs.all);
    this.#news.ofLists(touched);
    this.#publish();
  }

  #forgetIfGone(vf: Vf): void {
    if (!vf.conditions.has("gone") || vf.holder || vf.token) return;
    this.#vfs.remove(vf);
    for (const token of vf.standIns.values()) token.vf = undefined;
    for (const resource of vf.facts.resources) this.#tokens.settle(resource, this.#vfs.all);
    this.#news.ofLists([...vf.facts.resources, ...vf.standIns.keys()]);
  }

  /** Notes the driver that a VF is bound to now. */
  setDriver(address: PciAddress, driver: string | undefined): void {
    const vf = this.#vf(address);
    vf.facts = { ...vf.facts, driver };
  }

  /**
   * It is so of the VF from now on; one of the same code takes its place. Whether that changed anything: of a VF that is not there,
   * nothing is noted.
   */
  raise(address: PciAddress, condition: VfCondition): boolean {
    const vf = this.#vfs.get(address);
    if (!vf?.conditions.raise(condition)) return false;
    this.#publishVf(vf);
    return true;
  }

  /**
   * It is so no more, and no other condition is touched. With a condition instead of its code: unless it was raised again since.
   * Idempotent; answers whether it was so.
   */
  clear(address: PciAddress, which: VfConditionCode | VfCondition): boolean {
    const vf = this.#vfs.get(address);
    if (!vf?.conditions.clear(which)) return false;
    this.#publishVf(vf);
    return true;
  }

  /**
   * Kubelet gives the token to a pod: its VF is kept for that pod. Where the VF is unfit or taken, another one
   * of the resource takes its place. Idempotent.
   * @throws {InventoryError} unknown-token, no-free-vf.
   */
  reserveToken(tokenId: string): Reservation {
    const token = this.#token(tokenId);
    if (token.vf?.token !== token) this.#keep(token, this.#choice.ownOrOther(token, forAnyPod(token)));
    const isNew = !token.allocated;
    token.allocated = true;
    if (token.vf) this.#publishVf(token.vf);
    return { address: token.vf?.facts.address, heldBy: token.vf?.holder?.connectionId, isNew };
  }

  /**
   * Kubelet has taken the token back from its pod. A connection that still holds the VF keeps it, and its name is
   * returned so that it can be closed. An unknown token is no error: it is free.
   */
  releaseToken(tokenId: string): Reservation {
    const token = this.#tokens.get(tokenId);
    const vf = token?.vf?.token === token ? token?.vf : undefined;
    const isNew = token?.allocated ?? false;
    if (token?.allocated) {
      token.allocated = false;
      this.#loosen(token, vf);
    }
    return { address: vf?.facts.address, heldBy: vf?.holder?.connectionId, isNew };
  }

  /** Notes a token that a pod has and this node did not make: an older forwarder did. It gets a free VF if there is one. */
  adoptToken(tokenId: string, resource: string): void {
    const known = this.#tokens.get(tokenId);
    const token = known ?? this.#tokens.addForeign(tokenId, resource);
    if (token.vf?.token !== token) this.#keepAny(token);
    token.allocated = true;
    if (!known) this.#news.ofLists([resource]);
    if (token.vf) this.#news.of(token.vf);
    this.#publish();
  }

  /**
   * Gives a connection the VF of its token, in state `preparing`; the same again when it holds it already.
   * @throws {InventoryError} unknown-token, token-in-use, connection-holds-vf, no-free-vf.
   */
  take(request: TakeRequest): VfRecord {
    const { connectionId, use, owner = connectionId } = request;
    const token = this.#token(request.tokenId);
    const held = this.#byConnection.get(connectionId);
    if (held?.holder) {
      const same = held.token === token && held.holder.use === use && held.holder.phase !== "reclaiming";
      if (same && !held.conditions.first("quarantine")) return recordOf(held);
      throw holdsOther(held.facts, held.holder);
    }
    const other = token.vf?.token === token ? token.vf.holder : undefined;
    if (other) throw new InventoryError({ kind: "token-in-use", connectionId: other.connectionId });
    const vf = this.#choice.ownOrOther(token, { resource: token.resource, use, owner });
    this.#keep(token, vf);
    return this.#hold(vf, { connectionId, owner, use, phase: "preparing" });
  }

  /**
   * Notes that a connection holds a VF, as the node shows it after a restart. A token that reserved the VF
   * moves to another one where there is one. A token that this node did not make is noted where the VF has its resource.
   * @throws {InventoryError} unknown-token, unknown-vf, vf-in-use, connection-holds-vf.
   */
  adopt(request: AdoptRequest): VfRecord {
    const { connectionId, use, owner = connectionId } = request;
    const vf = this.#vf(request.address);
    const known = this.#tokens.get(request.tokenId);
    const held = this.#byConnection.get(connectionId);
    if (held?.holder && held !== vf) throw holdsOther(held.facts, held.holder);
    const other = vf.holder ?? (known && known.vf?.token === known ? known.vf.holder : undefined);
    if (other && other.connectionId !== connectionId) {
      throw new InventoryError({ kind: "vf-in-use", address: request.address, connectionId: other.connectionId });
    }
    const token = known ?? this.#foreignToken(vf, request);
    const displaced = vf.token === token ? undefined : vf.token;
    vf.token = undefined;
    this.#keep(token, vf);
    if (displaced) this.#displace(displaced);
    if (displaced) this.#settleIfLost(vf, displaced.resource);
    if (displaced) this.#news.ofLists([displaced.resource]);
    return this.#hold(vf, { connectionId, owner, use, phase: request.state });
  }

  /**
   * @throws {InventoryError} unknown-connection, wrong-state: nothing comes back from `reclaiming` but by `release`.
   */
  setState(connectionId: string, state: Exclude<Holder["phase"], "preparing">): void {
    const vf = this.#byConnection.get(connectionId);
    if (!vf?.holder) throw new InventoryError({ kind: "unknown-connection", connectionId });
    const from = vf.holder.phase;
    if (from === "reclaiming" && state === "ready") {
      throw new InventoryError({ kind: "wrong-state", connectionId, from, to: state });
    }
    vf.holder.phase = state;
    this.#publishVf(vf);
  }

  /**
   * The connection has given its VF back, clean. A connection that holds none is no error.
   * @throws {InventoryError} wrong-state when it is `ready`: it has to be reclaimed first.
   */
  release(connectionId: string): PciAddress | undefined {
    const vf = this.#byConnection.get(connectionId);
    if (!vf?.holder) return undefined;
    if (vf.holder.phase === "ready") {
      throw new InventoryError({ kind: "wrong-state", connectionId, from: "ready", to: "idle" });
    }
    this.#byConnection.delete(connectionId);
    vf.holder = undefined;
    if (vf.token) this.#loosen(vf.token, vf);
    else this.#publishVf(vf);
    return vf.facts.address;
  }

  /** Whether there were another VF of its resource for the connection, if that were so of the one that it holds. Changes nothing. */
  hasOther(connectionId: string, condition: VfCondition): boolean {
    const vf = this.#byConnection.get(connectionId);
    if (!vf?.holder || !vf.token || vf.conditions.has(condition.code)) return false;
    const { holder, token, conditions } = vf;
    vf.holder = undefined;
    conditions.raise(condition);
    const { use, owner } = holder;
    const other = this.#choice.other({ resource: token.resource, use, owner });
    conditions.clear(condition);
    vf.holder = holder;
    return other !== undefined;
  }

  /** The VF that a connection holds. */
  ofConnection(connectionId: string): VfRecord | undefined {
    const vf = this.#byConnection.get(connectionId);
    return vf && recordOf(vf);
  }

  get(address: PciAddress): VfRecord | undefined {
    const vf = this.#vfs.get(address);
    return vf && recordOf(vf);
  }

  /** The resource of a token; undefined when no resource of this node gave it out. */
  resourceOf(tokenId: string): string | undefined {
    return this.#tokens.get(tokenId)?.resource;
  }

  /** Resource names that have at least one device. */
  get resources(): readonly string[] {
    return this.#tokens.resources;
  }

  /** The devices of a resource as kubelet is to see them. */
  devicesOf(resource: string): readonly DeviceView[] {
    return [...this.#tokens.ofResource(resource)].map((token) => viewOf(token, this.#vfs.groupOf));
  }

  /** Where the device lies, for `preferredAllocation`; undefined for one that a pod could not be given now. */
  placementOf(tokenId: string): Placement | undefined {
    const token = this.#tokens.get(tokenId);
    const isForPods = token?.vf && (token.allocated || isOfferable(token.vf, this.#vfs.groupOf));
    return isForPods ? token.vf?.facts : undefined;
  }

  /** Every VF, in the order they were found. */
  snapshot(): readonly VfRecord[] {
    return [...this.#vfs.all.values()].map((vf) => recordOf(vf));
  }

  #token(id: string): Token {
    const token = this.#tokens.get(id);
    if (!token) throw new InventoryError({ kind: "unknown-token" });
    return token;
  }

  #foreignToken(vf: Vf, { tokenId, resource = onlyOne(vf.facts.resources) }: AdoptRequest): Token {
    if (resource === undefined || !isOffering(vf, resource)) throw new InventoryError({ kind: "unknown-token" });
    this.#news.ofLists([resource]);
    return this.#tokens.addForeign(tokenId, resource);
  }

  #vf(address: PciAddress): Vf {
    const vf = this.#vfs.get(address);
    if (!vf) throw new InventoryError({ kind: "unknown-vf", address });
    return vf;
  }

  #keep(token: Token, vf: Vf): void {
    const before = token.vf;
    this.#tokens.move(token, vf);
    vf.token = token;
    this.#news.of(vf);
    if (before === vf) return;
    this.#news.ofLists([token.resource]);
    if (!before) return;
    this.#settleIfLost(before, token.resource);
    this.#news.of(before);
  }

  /** No token may be assigned to a VF that offers the resource no more. */
  #settleIfLost(vf: Vf, resource: string): void {
    if (!isOffering(vf, resource)) this.#tokens.settle(resource, this.#vfs.all);
  }

  /** Its own VF, or another one where there is one; else it waits for one. */
  #keepAny(token: Token): void {
    const any = forAnyPod(token);
    const vf = this.#choice.isFit(token.vf, token, any) ? token.vf : this.#choice.other(any);
    if (vf) this.#keep(token, vf);
  }

  /** Its VF is another token's now. One that an older forwarder made is none of the pairs, whose VF would find it again. */
  #displace(token: Token): void {
    if (token.ownVf === undefined) token.vf = undefined;
    if (token.allocated) this.#keepAny(token);
  }

  #hold(vf: Vf, holder: Holder): VfRecord {
    vf.holder = holder;
    this.#byConnection.set(holder.connectionId, vf);
    this.#publishVf(vf);
    return recordOf(vf);
  }

  /** Ends what is not needed any more: the reservation, a swap of VFs, a VF the node has lost. */
  #loosen(token: Token, vf: Vf | undefined): void {
    if (!token.allocated && !vf?.holder) {
      if (vf) vf.token = undefined;
      if (!vf || token.ownVf !== vf.facts.address || !isOffering(vf, token.resource)) {
        this.#tokens.settle(token.resource, this.#vfs.all);
        this.#news.ofLists([token.resource]);
      }
    }
    if (vf) this.#forgetIfGone(vf);
    if (vf) this.#news.of(vf);
    else this.#news.ofLists([token.resource]);
    this.#publish();
  }

  #publishVf(vf: Vf): void {
    this.#news.of(vf);
    this.#publish();
  }

  /** At the end of an operation: who listens may read anything. */
  #publish(): void {
    const change = this.#news.take();
    for (const listener of [...this.#listeners]) listener(change);
  }
}

function onlyOne<T>(all: readonly T[]): T | undefined {
  return all.length === 1 ? all[0] : undefined;
}

/** What a reservation wants: nothing is known yet of what the pod uses it as. */
function forAnyPod({ resource }: Token): VfRequest {
  return { resource, use: undefined, owner: "" };
}

function holdsOther({ address }: VfFacts, { use }: Holder): InventoryError {
  return new InventoryError({ kind: "connection-holds-vf", address, use });
}
