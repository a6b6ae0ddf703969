// One VF from the moment a connection takes it until it is given back, whatever it is used as. What a mechanism does
// with it in between: kernel-attachment.ts.
import { type Clock, Latest, messageOf } from "../async/index.ts";
import {
  BEING_CLEANED,
  BEING_RESTORED,
  conditionOf,
  describeCondition,
  type Inventory,
  InventoryError,
  isBeingRestored,
  type TakeRequest,
  type VfCondition,
  type VfRecord,
} from "../inventory/index.ts";
import { isForeignLink, type NetdevError } from "../netdev/index.ts";
import { type DriverBinder, DriverError, type PciAddress } from "../pci/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { VfJournal } from "./connection-journal.ts";
import { LeftOutVfs } from "./left-out-vfs.ts";

/** So many VFs are tried within one Request. */
const BIND_TRIES = 3;
/**
 * So long a Request waits for a driver when another VF could be had: docs/decisions/018. Drivers bind a VF in tens of
 * milliseconds, slow ones in about a second; clients wait 15 s for the whole of their Request.
 */
const PATIENCE_MS = 2_000;
/** Faults of the node: another VF would have the same one. */
const COMMON_FAULTS: readonly DriverError["fault"]["kind"][] = [
  "driver-missing",
  "no-vfio-container",
  "group-unreadable",
];

interface VfHoldParts {
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  readonly journal: Pick<VfJournal, "vfs" | "keepVf" | "forgetVf">;
  /** Whether the host has begun to use a VF. */
  readonly hostUse: { refuse(address: PciAddress): Promise<void> };
  /** Judges all VFs again. */
  readonly survey: { judge(): void; readonly refusals: readonly string[] };
  /** Whether the link that sysfs has for a VF is its own. */
  readonly isLinkSound: (address: PciAddress) => Promise<boolean>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Who may take the VFs of this node, and which of them are left out for a while. */
export class VfHolds {
  readonly #parts: VfHoldParts;
  readonly #leftOut: LeftOutVfs;

  constructor(parts: VfHoldParts) {
    this.#parts = parts;
    this.#leftOut = new LeftOutVfs(parts);
  }

  /**
   * As `take`; where there is none because one is being cleaned or restored, waits for it.
   * @throws {InventoryError}, or the signal's reason.
   */
  async takeSoon(request: TakeRequest, signal: AbortSignal): Promise<HeldVf> {
    for (;;) {
      try {
        return this.take(request);
      } catch (error) {
        if (!isScarceForNow(error)) throw error;
        await this.#nextCleaned(signal);
      }
    }
  }

  async #nextCleaned(signal: AbortSignal): Promise<void> {
    const { inventory } = this.#parts;
    const news = new Latest<void>();
    const isDone = (address: PciAddress) => {
      const vf = inventory.get(address);
      return !vf || !(conditionOf(vf, "being-cleaned") || isBeingRestored(vf.conditions));
    };
    const stop = inventory.onChange(({ vfs }) => {
      if ([...vfs].some(isDone)) news.set();
    });
    await news.next(signal).finally(stop);
  }

  /** @throws {InventoryError} when there is none to have. */
  take(request: TakeRequest): HeldVf {
    try {
      return new HeldVf({ ...this.#parts, leftOut: this.#leftOut }, request);
    } catch (error) {
      const { refusals } = this.#parts.survey;
      const isUnknown = error instanceof InventoryError && error.fault.kind === "unknown-token";
      if (!isUnknown || refusals.length === 0) throw error;
      throw new InventoryError({ kind: "unknown-token", unusablePfs: refusals });
    }
  }
}

/** Whether a VF that could serve is being cleaned or restored, which is over soon. */
function isScarceForNow(error: unknown): boolean {
  if (!(error instanceof InventoryError) || error.fault.kind !== "no-free-vf") return false;
  return Object.keys(error.fault.because).some((why) => why.includes(BEING_CLEANED) || why.includes(BEING_RESTORED));
}

/** A VF that a connection holds. It may become another one while it is bound. */
export class HeldVf {
  readonly request: TakeRequest;
  readonly #parts: VfHoldParts & { readonly leftOut: LeftOutVfs };
  #vf: VfRecord;

  constructor(parts: VfHoldParts & { readonly leftOut: LeftOutVfs }, request: TakeRequest) {
    this.request = request;
    this.#parts = parts;
    this.#vf = parts.inventory.take(request);
  }

  /** As it was when it was taken. */
  get vf(): VfRecord {
    return this.#vf;
  }

  get address(): PciAddress {
    return this.#vf.address;
  }

  /**
   * Binds it to the driver of its use; `isThere` waits for what the driver makes, and its answer is ours. One that fails or takes
   * long is left out, and another one of the same resource takes its place.
   * @throws {DriverError | NetdevError} the fault of the last one that could be had.
   */
  async bind<T>(signal: AbortSignal, isThere: (address: PciAddress) => Promise<T>): Promise<T> {
    for (let left = BIND_TRIES; ; left -= 1) {
      const binding = this.#bindOnce(signal, isThere);
      try {
        if (left > 1 && (await this.#takesLong(binding)) && !signal.aborted && this.#leave(binding)) continue;
        return await binding;
      } catch (error) {
        if (left <= 1 || !this.#isItsOwn(error)) throw error;
        this.#takeAnother(error);
      }
    }
  }

  /** Whether another VF would not have the same fault. */
  #isItsOwn(error: unknown): error is DriverError | NetdevError {
    if (error instanceof DriverError) return !COMMON_FAULTS.includes(error.fault.kind);
    return isForeignLink(error);
  }

  async #bindOnce<T>(signal: AbortSignal, isThere: (address: PciAddress) => Promise<T>): Promise<T> {
    const vf = this.#vf;
    await this.refuseHostUse();
    await this.#parts.binder.bind(vf, this.request.use, signal);
    return await isThere(vf.address);
  }

  /** To be called right before it is touched. @throws {DriverError} host-uses-it. */
  refuseHostUse(): Promise<void> {
    return this.#parts.hostUse.refuse(this.#vf.address);
  }

  #takesLong(binding: Promise<unknown>): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = this.#parts.clock.after(PATIENCE_MS, () => resolve(true));
      const ended = () => {
        timer.cancel();
        resolve(false);
      };
      binding.then(ended, ended);
    });
  }

  /** Continues with another VF while the kernel works on this one. False where there is none to have. */
  #leave(binding: Promise<unknown>): boolean {
    const { inventory, leftOut, log } = this.#parts;
    const { address } = this.#vf;
    const { connectionId } = this.request;
    if (inventory.get(address)?.state !== "preparing") return false; // It is quarantined for another cause.
    const slow = { code: "driver-binding" } as const;
    // First: who hears that it is no connection's may begin to restore it, and then the connection could not have it again.
    if (!inventory.hasOther(connectionId, slow)) {
      log.info("vf-not-replaced", { connection: connectionId, vf: address });
      return false;
    }
    inventory.raise(address, slow);
    inventory.release(connectionId);
    this.#vf = inventory.take(this.request);
    leftOut.awaitDriver(address, binding);
    log.warn("vf-replaced", {
      connection: connectionId,
      vf: address,
      by: this.#vf.address,
      error: describeCondition(slow),
    });
    return true;
  }

  /** The fault is this VF's alone: the connection gets another one of the same resource, if there is one. */
  #takeAnother(error: DriverError | NetdevError): void {
    const { inventory, leftOut, log } = this.#parts;
    const { connectionId } = this.request;
    const { address } = this.#vf;
    if (isForeignLink(error)) this.withholdIfForeign(error);
    else if (error.fault.kind === "write-stuck")
      leftOut.setAside(address, { code: "write-stuck", error: error.message });
    // What the host uses is withheld by who has seen it, until the host lets go of it.
    else if (error.fault.kind !== "host-uses-it") leftOut.leaveOut(address, error.message);
    inventory.release(connectionId);
    try {
      this.#vf = inventory.take(this.request);
    } catch {
      throw error; // None is left: what was wrong with the first one is what the caller has to know.
    }
    log.warn("vf-replaced", { connection: connectionId, vf: address, by: this.#vf.address, error: error.message });
  }

  /** A link that is not the VF's was found in its place: no client gets the VF until that is over. */
  withholdIfForeign(error: unknown): void {
    const { leftOut, isLinkSound } = this.#parts;
    if (!isForeignLink(error)) return;
    const foreign = { code: "foreign-link", error: error.message } as const;
    leftOut.setAside(this.#vf.address, foreign, ({ address }) => isLinkSound(address));
  }

  /** The client has it. */
  setReady(): void {
    const { inventory } = this.#parts;
    inventory.clear(this.#vf.address, "recently-restored"); // before an earlier client
    inventory.setState(this.request.connectionId, "ready");
  }

  /** It is being restored. */
  setReclaiming(): void {
    const { inventory } = this.#parts;
    const { connectionId } = this.request;
    if (inventory.ofConnection(connectionId)) inventory.setState(connectionId, "reclaiming");
  }

  /**
   * No connection holds it any more, and its client may have left something on it: the reconciler cleans it (reconcile/restore.ts),
   * and until then it is in the journal and no other client gets it.
   */
  async leaveToBeCleaned(): Promise<void> {
    const { inventory, journal, log } = this.#parts;
    const { address } = this.#vf;
    const { connectionId } = this.request;
    const entry = journal.vfs.get(address);
    if (entry?.use === "kernel") {
      await journal.keepVf({ ...entry, isLeft: true }).catch((error: unknown) => {
        // As it was left, it is cleaned after a restart, too, once its connection is found to have ended.
        log.error("journal-not-written", { connection: connectionId, vf: address, error: messageOf(error) });
      });
    }
    inventory.raise(address, { code: "being-cleaned" });
    inventory.release(connectionId);
  }

  /** Nothing has come of its connection: its client has it as before, and no other gets it. */
  leaveAsFound(as: VfCondition): void {
    const { inventory, journal } = this.#parts;
    journal.forgetVf(this.#vf.address);
    inventory.raise(this.#vf.address, as);
    inventory.release(this.request.connectionId);
  }

  /** No connection holds it any more; it is restored and clean. */
  giveBack(): void {
    const { inventory, journal, survey, clock } = this.#parts;
    const { address } = this.#vf;
    // What is quarantined stays in the journal: a restart alone makes nothing sound.
    if (inventory.get(address)?.state !== "quarantined") {
      const before = journal.vfs.get(address);
      journal.forgetVf(address);
      const sinceMs = clock.monotonicMs();
      if (before?.use === "kernel") inventory.raise(address, { code: "recently-restored", sinceMs, before });
    }
    inventory.release(this.request.connectionId);
    // What was wrong may have been wrong for this client only.
    if (inventory.get(address)?.problem !== undefined) survey.judge();
  }
}
