// A repair that failed is tried again: ever more seldom, or at once when the kernel says that the VF has changed since.
import { backoffMs, type Clock, messageOf } from "../async/index.ts";
import { conditionOf, type Inventory, type VfRecord } from "../inventory/index.ts";
import type { PciAddress } from "../pci/index.ts";
import { type Log, type LogFields, type Metrics, outcomes } from "../telemetry/index.ts";
import type { Actions } from "./actions.ts";
import type { Subject } from "./decide.ts";
import { type Repair, repairs } from "./decision.ts";

interface RepairsOptions {
  readonly node: { readonly inventory: Inventory };
  readonly actions: Actions;
  /** Between two passes: the first retry is in the next one. */
  readonly intervalMs: number;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}

/** No retry waits for more passes than these. */
const MOST_INTERVALS = 6;
/** What a try has done to the VF makes events, and they are no news. */
const OWN_EVENTS_MS = 20;

/** What was repaired and what could not be, and how long the passes took. */
function declareMetrics(metrics: Metrics) {
  const labels = { kind: repairs };
  return {
    repaired: metrics.counter({
      name: "nsm_sriov_repairs_total",
      help: "Differences between inventory, journal and node that were repaired",
      labels,
    }),
    failed: metrics.counter({
      name: "nsm_sriov_repairs_failed_total",
      help: "Differences that could not be repaired; each is tried again",
      labels,
    }),
    passes: metrics.histogram({
      name: "nsm_sriov_reconcile_seconds",
      help: "How long it took to read the whole node back and to repair what differed",
      labels: { outcome: outcomes },
    }),
  };
}

export class Repairs {
  readonly metrics: ReturnType<typeof declareMetrics>;
  readonly #options: RepairsOptions;

  constructor(options: RepairsOptions) {
    this.#options = options;
    this.metrics = declareMetrics(options.metrics);
  }

  /** Whether an event of the VF may have ended what keeps it from being repaired. */
  isAwaited(record: VfRecord): boolean {
    const failed = conditionOf(record, "repair-failed");
    return failed !== undefined && this.#options.clock.monotonicMs() - failed.sinceMs > OWN_EVENTS_MS;
  }

  /** Tries it, if it is time or the kernel has said that the VF has changed. Resolves with whether that was in vain. */
  async hasFailed(repair: Exclude<Repair, "forget">, { record, entry }: Subject, isHeard: boolean): Promise<boolean> {
    if (!record) return false;
    const { node, actions, clock } = this.#options;
    const { address } = record;
    const before = conditionOf(record, "repair-failed");
    const failed = isHeard || before?.repair !== repair ? undefined : before;
    if (failed && clock.monotonicMs() < failed.againMs) return false;
    try {
      const isNews = await actions.repair(repair, record, entry);
      node.inventory.clear(address, "repair-failed");
      if (isNews) this.done(repair, address);
      return false;
    } catch (error) {
      this.#noteFailure(repair, record, { error: messageOf(error), tries: (failed?.tries ?? 0) + 1 });
      return true;
    }
  }

  done(repair: Repair, vf: PciAddress, more: LogFields = {}): void {
    this.metrics.repaired.add({ kind: repair });
    this.#options.log.warn("vf-repaired", { vf, repair, ...more });
  }

  #noteFailure(
    repair: Repair,
    record: VfRecord,
    { error, tries }: { readonly error: string; readonly tries: number },
  ): void {
    const { node, intervalMs, clock, log } = this.#options;
    const { address } = record;
    const sinceMs = clock.monotonicMs();
    const again = { firstMs: intervalMs / 2, limitMs: MOST_INTERVALS * intervalMs, random: () => 1 };
    const againMs = sinceMs + backoffMs(again, tries - 1);
    const before = conditionOf(record, "repair-failed");
    node.inventory.raise(address, { code: "repair-failed", repair, error, tries, sinceMs, againMs });
    this.metrics.failed.add({ kind: repair });
    if (before?.repair !== repair || before.error !== error)
      log.error("vf-not-repaired", { vf: address, repair, error });
  }
}
