// While the forwarder runs: every few seconds, and when the kernel tells of a function that concerns us, the node is read
// back, and journal, book and node are made to agree. What a running client has is only looked at. docs/decisions/016.
import type { Clock, Random, Timer } from "../async/index.ts";
import type { LinkOwnerOf, Netns, OpenRtnl, Uevent, UeventSource } from "../kernel/index.ts";
import type { Node } from "../node/index.ts";
import type { PciAddress, VfRecord } from "../sriov/index.ts";
import { type Counter, type Histogram, type Log, type Metrics, outcomes, timed } from "../telemetry/index.ts";
import type { EarlierGrants, KeptVf, NodeJournal } from "../vf/index.ts";
import { type BringBackParts, bringBack, cleanStranger, isSpoilt, takeBackGrant } from "./bring-back.ts";
import type { Recovered } from "./recover.ts";
import { isOdd, type Repair, repairOf, repairs, type VfSight } from "./repairs.ts";

export interface ReconcileOptions {
  readonly node: Node;
  readonly journal: Pick<NodeJournal, "vfs" | "vfioVfs" | "forgotten" | "forgetVf" | "drop">;
  readonly left: Recovered;
  /** What pods had by VFIO and the journal cannot explain. */
  readonly kept: EarlierGrants;
  /** The host's namespace. */
  readonly netns: Netns;
  readonly openRtnl: OpenRtnl;
  readonly linkOwnerOf: LinkOwnerOf;
  readonly uevents: UeventSource;
  /** Takes down a connection whose namespace has ended. */
  endConnection(connectionId: string): Promise<void>;
  /** Looks at the whole node, as after an event. */
  lookAnew(): void;
  /** Between the end of one look at everything and the next. */
  readonly intervalMs: number;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** A function that comes home brings several events. */
const SETTLE_MS = 20;
/** What is only seen for a moment is somebody's work. */
const ODD_MS = 200;
/** A function that so many looks have not found has not only been reset. */
const GONE_INTERVALS = 12;
/** So long after it was given back, a write that came late can have spoilt a function. */
const SPOILT_INTERVALS = 12;

/** Starts with a look at once. Returns how to stop; a repair that is under way is waited for. */
export function startReconciler(options: ReconcileOptions): () => Promise<void> {
  const reconciler = new Reconciler(options);
  return () => reconciler.close();
}

class Reconciler {
  readonly #options: ReconcileOptions;
  readonly #parts: BringBackParts;
  readonly #repaired: Counter<{ readonly kind: readonly Repair[] }>;
  readonly #failed: Counter<{ readonly kind: readonly Repair[] }>;
  readonly #looks: Histogram<{ readonly outcome: typeof outcomes }>;
  readonly #stop: () => void;
  /** Found without a network device, or otherwise than in the book, by the last look. */
  readonly #missing = new Set<PciAddress>();
  readonly #odd = new Set<PciAddress>();
  readonly #ending = new Set<string>();
  readonly #goneSinceMs = new Map<PciAddress, number>();
  readonly #homeSinceMs = new WeakMap<KeptVf, number>();
  /** What was said last of a function that goes on needing it. */
  readonly #told = new Map<PciAddress, string>();
  readonly #todo = new Set<PciAddress>();
  #timers: { next?: Timer; soon?: Timer } = {};
  #running: Promise<void> = Promise.resolve();
  #isClosed = false;

  constructor(options: ReconcileOptions) {
    const { metrics, uevents } = options;
    this.#options = options;
    this.#parts = options;
    const labels = { kind: repairs };
    this.#repaired = metrics.counter({
      name: "nsm_sriov_repairs_total",
      help: "Differences between book and node that were mended",
      labels,
    });
    this.#failed = metrics.counter({
      name: "nsm_sriov_repairs_failed_total",
      help: "Differences that could not be mended; each is tried again",
      labels,
    });
    this.#looks = metrics.histogram({
      name: "nsm_sriov_reconcile_seconds",
      help: "How long it took to read the whole node back and to mend what differed",
      labels: { outcome: outcomes },
    });
    this.#stop = uevents.subscribe((event) => this.#heard(event));
    this.#inTurn(() => this.#lookAtAll());
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#stop();
    for (const timer of Object.values(this.#timers)) timer.cancel();
    await this.#running;
  }

  /** Most events of network devices are our own moves: only functions that somebody waits for are looked at. */
  #heard({ action, subsystem, devpath }: Uevent): void {
    if (action === "lost") {
      for (const { address } of this.#options.node.inventory.snapshot()) this.#todo.add(address);
      this.#lookSoon(SETTLE_MS);
    }
    if (subsystem !== "net" && subsystem !== "pci") return;
    for (const part of devpath.split("/")) {
      const address = part as PciAddress;
      if (!this.#isAwaited(address)) continue;
      this.#todo.add(address);
      this.#lookSoon(SETTLE_MS);
    }
  }

  #isAwaited(address: PciAddress): boolean {
    const { left, journal, node } = this.#options;
    if (left.hidden.has(address) || left.unmet.has(address)) return true;
    return journal.vfs.has(address) && node.inventory.get(address)?.connectionId === undefined;
  }

  #inTurn(look: () => Promise<void>): void {
    this.#running = this.#running.then(look);
  }

  #lookSoon(delayMs: number): void {
    if (this.#isClosed || this.#timers.soon) return;
    this.#timers.soon = this.#options.clock.after(delayMs, () => {
      delete this.#timers.soon;
      this.#inTurn(() => this.#lookAt([...this.#todo]));
    });
  }

  async #lookAtAll(): Promise<void> {
    const all = this.#options.node.inventory.snapshot().map(({ address }) => address);
    const told = (outcome: (typeof outcomes)[number], took: number) => this.#looks.observe({ outcome }, took);
    await timed(this.#options.clock, told, () => this.#lookAt(all));
    await this.#forgetGone();
    const { clock, intervalMs } = this.#options;
    if (this.#isClosed) return;
    this.#timers.next = clock.after(intervalMs, () => this.#inTurn(() => this.#lookAtAll()));
  }

  /** One after the other: nothing waits for it, and the files are read on threads that others need. */
  async #lookAt(addresses: readonly PciAddress[]): Promise<void> {
    for (const address of addresses) {
      if (this.#isClosed) return;
      this.#todo.delete(address);
      await this.#mend(address);
    }
  }

  async #mend(address: PciAddress): Promise<void> {
    const { inventory } = this.#options.node;
    const before = inventory.get(address);
    if (!before) return;
    try {
      const sight = await this.#see(before);
      // What a Request or a Close has changed meanwhile is theirs.
      const record = inventory.get(address);
      if (!record || record.state !== before.state || record.connectionId !== before.connectionId) return;
      this.#note(sight);
      const repair = repairOf(sight);
      if (repair) await this.#do(repair, sight);
      else this.#told.delete(address);
    } catch (error) {
      this.#options.log.debug("vf-not-looked-at", { vf: address, error: String(error) });
    }
  }

  async #see(record: VfRecord): Promise<VfSight> {
    const { node, left, journal } = this.#options;
    const { address } = record;
    const seen = await node.binder.glanceAt(address);
    return {
      record,
      ...seen,
      wasMissing: this.#missing.has(address),
      wasOdd: this.#odd.has(address),
      kept: journal.vfs.get(address) ?? left.contradicting.get(address),
      isContradicting: left.contradicting.has(address),
      isHidden: left.hidden.has(address),
      isGranted: this.#isGranted(address),
      isUnmet: left.unmet.has(address),
      isSpoilt: seen.hasNetdev && (await this.#isSpoilt(record)),
    };
  }

  /** Not where a connection has taken it since: the journal has that one's word about it then. */
  #isGranted(address: PciAddress): boolean {
    const { kept, journal } = this.#options;
    const had = kept.get(address)?.entry.kept.connectionId;
    return had !== undefined && journal.vfioVfs.get(address)?.connectionId === had;
  }

  /** For the next look: what is only seen once may be somebody's work that is under way. */
  #note(sight: VfSight): void {
    const { address } = sight.record;
    if (sight.hasNetdev) this.#missing.delete(address);
    else this.#missing.add(address);
    if (!isOdd(sight)) this.#odd.delete(address);
    else if (!this.#odd.has(address)) {
      this.#odd.add(address);
      this.#todo.add(address);
      this.#lookSoon(ODD_MS);
    }
  }

  async #isSpoilt(record: VfRecord): Promise<boolean> {
    const { journal, clock, intervalMs } = this.#options;
    const kept = journal.forgotten.get(record.address);
    if (!kept || record.connectionId !== undefined || record.driver !== record.kernelDriver) return false;
    const nowMs = clock.monotonicMs();
    const sinceMs = this.#homeSinceMs.get(kept) ?? nowMs;
    this.#homeSinceMs.set(kept, sinceMs);
    return nowMs - sinceMs < SPOILT_INTERVALS * intervalMs && (await isSpoilt(this.#parts, record, kept));
  }

  async #do(repair: Exclude<Repair, "forget">, sight: VfSight): Promise<void> {
    const { address } = sight.record;
    const { log } = this.#options;
    try {
      await this.#act(repair, sight);
      if (!this.#isNews(address, repair)) return;
      this.#repaired.add({ kind: repair });
      log.warn("vf-repaired", { vf: address, repair });
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (this.#isNews(address, `${repair}: ${why}`)) log.error("vf-not-repaired", { vf: address, repair, error: why });
      this.#failed.add({ kind: repair });
    }
  }

  /** Not waited for: an endpoint that does not answer would keep every other function waiting. */
  #end(connectionId: string): void {
    if (this.#ending.has(connectionId)) return;
    this.#ending.add(connectionId);
    void this.#options.endConnection(connectionId).finally(() => this.#ending.delete(connectionId));
  }

  #isNews(address: PciAddress, what: string): boolean {
    const isNew = this.#told.get(address) !== what;
    this.#told.set(address, what);
    return isNew;
  }

  async #act(repair: Exclude<Repair, "forget">, { record, kept }: VfSight): Promise<void> {
    const { node, left, journal, lookAnew } = this.#options;
    const { inventory, binder } = node;
    const { address } = record;
    switch (repair) {
      case "look-anew":
        return lookAnew();
      case "end-connection":
        return this.#end(left.unmet.get(address)?.connectionId ?? "");
      case "rebind":
        return await binder.bind(record, "kernel");
      case "keep-back":
        left.hidden.add(address);
        inventory.raise(address, { code: "netdev-missing" });
        return;
      case "take-back": {
        const { kept: granted } = this.#options;
        const had = granted.get(address);
        if (!had) return;
        await takeBackGrant(this.#parts, record, had);
        granted.delete(address);
        return await this.#free(address, had.entry.kept.connectionId);
      }
      case "clean":
        await cleanStranger(this.#parts, record);
        left.hidden.delete(address);
        inventory.clear(address, "netdev-missing");
        return;
      case "restore": {
        const as = kept ?? journal.forgotten.get(address);
        if (!as) return;
        // Nobody gets it in the middle of this, nor if it fails.
        inventory.raise(address, { code: "drifted" });
        left.contradicting.set(address, as);
        await bringBack(this.#parts, record, as);
        left.contradicting.delete(address);
        return await this.#free(address, as.connectionId);
      }
    }
  }

  async #free(address: PciAddress, connectionId: string): Promise<void> {
    const { node, journal } = this.#options;
    journal.forgetVf(address);
    await journal.drop(connectionId).catch(() => {}); // made up for by the journal itself
    for (const code of ["contradicts-journal", "drifted", "unexplained-grant"] as const)
      node.inventory.clear(address, code);
  }

  /** Its client has lost the network device with it. Not where we see no function at all: the path may be wrong. */
  async #forgetGone(): Promise<void> {
    const { node, left, journal, intervalMs, clock, log } = this.#options;
    const nowMs = clock.monotonicMs();
    for (const [address, { connectionId }] of [...journal.vfs]) {
      const isHere = node.inventory.get(address) !== undefined || node.survey.pfs.size === 0;
      if (isHere || (await node.binder.isPresent(address).catch(() => true))) {
        this.#goneSinceMs.delete(address);
        continue;
      }
      const sinceMs = this.#goneSinceMs.get(address) ?? nowMs;
      this.#goneSinceMs.set(address, sinceMs);
      if (nowMs - sinceMs < GONE_INTERVALS * intervalMs) continue;
      this.#goneSinceMs.delete(address);
      left.late.delete(address);
      journal.forgetVf(address);
      await journal.drop(connectionId).catch(() => {}); // made up for by the journal itself
      this.#repaired.add({ kind: "forget" });
      log.warn("vf-forgotten", { vf: address, connection: connectionId });
    }
  }
}
