// VFs that no client has, made as the host had them, and what the journal and the inventory have of that.
import type { Clock } from "../async/index.ts";
import { type BeforeClient, conditionOf, type VfRecord } from "../inventory/index.ts";
import type { KernelVfEntry, UnrestoredVf, VfEntry } from "../mechanisms/index.ts";
import type { Node } from "../node/index.ts";
import type { PciAddress } from "../pci/index.ts";
import { type Metrics, outcomes, timed } from "../telemetry/index.ts";
import { cleanVf, isOfOther, type NotAsBefore, type RestoreParts, restoreVf } from "./restore.ts";

interface RestorationsOptions extends RestoreParts {
  readonly node: Node;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

function declareCleaningTimes(metrics: Metrics) {
  return metrics.histogram({
    name: "nsm_sriov_vf_cleaning_seconds",
    help: "How long it took to clean a virtual function after its client: another network device, with what the host had set",
    labels: { outcome: outcomes },
  });
}

export class Restorations {
  readonly #options: RestorationsOptions;
  readonly #free: (address: PciAddress, entry: VfEntry | undefined) => Promise<void>;
  readonly #cleaningTimes: ReturnType<typeof declareCleaningTimes>;

  /** `free` is called with a VF that is clean: it is no client's, and the journal has no entry of it any more. */
  constructor(options: RestorationsOptions, free: (address: PciAddress, entry: VfEntry | undefined) => Promise<void>) {
    this.#options = options;
    this.#free = free;
    this.#cleaningTimes = declareCleaningTimes(options.metrics);
  }

  async clean(vf: VfRecord): Promise<void> {
    const { address } = vf;
    await this.keep(address, { isNewNeeded: true });
    const before = this.#options.journal.unrestored.beforeOf(address);
    if (before) {
      await this.#report(address, await restoreVf(this.#options, vf, { ...before, isNewNeeded: true }), before);
      return;
    }
    const { found, guessed } = await cleanVf(this.#options, vf);
    await this.#report(address, found, guessed);
  }

  /** On disk before anything of it is changed: a start continues what the process dies over. What fails the journal makes up for. */
  async keep(address: PciAddress, what: Pick<UnrestoredVf, "before" | "isNewNeeded" | "isNameTaken">): Promise<void> {
    const { journal, links } = this.#options;
    const boot = links.settings && { boot: links.settings.boot };
    await journal.unrestored.keep(address, { ...what, ...boot }).catch(() => {});
  }

  /** Answers whether that is news: after each client it is not. */
  async restore(vf: VfRecord, entry: KernelVfEntry | undefined): Promise<boolean> {
    const { node, journal, clock, log } = this.#options;
    const { inventory } = node;
    const { address } = vf;
    if (inventory.get(address)?.connectionId !== undefined) return false; // it is its client's now
    const known = conditionOf(vf, "drifted")?.before ?? conditionOf(vf, "recently-restored")?.before;
    const before = entry ?? known ?? journal.unrestored.beforeOf(address);
    if (!before) return false;
    if (await isOfOther(this.#options, vf, before.state)) return await this.#letGo(vf, entry);
    const isCleaning = conditionOf(vf, "being-cleaned") !== undefined;
    // No client gets it in the middle of this, nor if it fails.
    const quarantine = () => inventory.raise(address, { code: "drifted", before });
    if (!isCleaning && !conditionOf(vf, "contradicts-journal")) quarantine();
    if (!entry) await this.keep(address, { before });
    const startedMs = clock.monotonicMs();
    const observe = (outcome: (typeof outcomes)[number], seconds: number) =>
      entry?.isLeft && this.#cleaningTimes.observe({ outcome }, seconds);
    try {
      const restoring = () => restoreVf(this.#options, vf, { ...before, isNewNeeded: entry !== undefined });
      await this.#report(address, await timed(clock, observe, restoring), before);
    } catch (error) {
      if (isCleaning) quarantine();
      inventory.clear(address, "being-cleaned");
      throw error;
    }
    const sinceMs = clock.monotonicMs();
    if (entry) inventory.raise(address, { code: "recently-restored", sinceMs, before: entry });
    await this.#free(address, entry);
    const tookMs = Math.round(sinceMs - startedMs);
    if (isCleaning) log.info("vf-cleaned", { vf: address, connection: before.connectionId, tookMs });
    return !isCleaning;
  }

  /** The VF that a client had was destroyed: no client has had this one, and it is as the host has made it. */
  async #letGo({ address }: VfRecord, entry: KernelVfEntry | undefined): Promise<boolean> {
    const { node, journal, log } = this.#options;
    journal.unrestored.forget(address);
    for (const code of ["not-as-before", "name-taken", "recently-restored"] as const)
      node.inventory.clear(address, code);
    await this.#free(address, entry);
    log.info("vf-made-again", { vf: address });
    return true;
  }

  /** It is clean; whether the host finds it as it had set it is another question. */
  async #report(address: PciAddress, found: NotAsBefore | undefined, before: BeforeClient | undefined): Promise<void> {
    const { node, journal, log } = this.#options;
    const { left, isNameTaken } = found ?? { left: [], isNameTaken: false };
    const error = `Its network device is clean, but not as the host had set it: ${left.join("; ")}`;
    if (left.length === 0) node.inventory.clear(address, "not-as-before");
    else if (node.inventory.raise(address, { code: "not-as-before", error })) {
      log.warn("vf-not-as-before", { vf: address, left: left.join("; ") });
    }
    const { name } = before?.state.original ?? {};
    if (isNameTaken && name !== undefined) node.inventory.raise(address, { code: "name-taken", name });
    else node.inventory.clear(address, "name-taken");
    if (!found) {
      // The device of its kernel driver is gone, with all that a client had on it; the next one is to be as it was.
      if (journal.unrestored.beforeOf(address)) await this.keep(address, { isNewNeeded: false });
      else journal.unrestored.forget(address);
    } else if (left.length === 0 || !before) journal.unrestored.forget(address);
    else await this.keep(address, { before, isNewNeeded: false, isNameTaken });
  }
}
