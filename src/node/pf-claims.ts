// Which PFs are this process's: two releases of the forwarder on one node have state folders of their own, and
// no journal that says to one what the other does.
import type { Clock } from "../async/index.ts";
import type { ExclusiveLock } from "../kernel/index.ts";
import { KernelError } from "../kernel/index.ts";
import type { PciAddress, PfConfig } from "../pci/index.ts";
import type { Condition, Health, Log } from "../telemetry/index.ts";
import type { HostLocks } from "./host.ts";

interface PfClaimsOptions {
  readonly locks: HostLocks;
  readonly health: Health;
  readonly log: Log;
}

/** So long at most: what is locked for longer is another release's. */
const DYING_MS = 3_000;
const AGAIN_MS = 50;

/** The locks of the configured PFs. They stay ours until the process ends, whatever the list says later. */
export class PfClaims {
  readonly #options: PfClaimsOptions;
  readonly #heldElsewhere: Condition;
  readonly #locks = new Map<PciAddress, ExclusiveLock>();
  readonly #refused = new Map<PciAddress, string>();

  constructor(options: PfClaimsOptions) {
    this.#options = options;
    this.#heldElsewhere = options.health.condition("pf-held-elsewhere");
  }

  /**
   * Before the first observation: a process that has just died lets go of its locks one after the other, for closing a socket takes the kernel
   * its time. To miss such a PF would leave the clients that have its VFs without them. @throws the signal's reason.
   */
  async awaitDying({ physicalFunctions }: PfConfig, clock: Clock, signal?: AbortSignal): Promise<void> {
    const endMs = clock.monotonicMs() + DYING_MS;
    const heldOf = (pfs: PfConfig["physicalFunctions"]) => pfs.filter(({ address }) => !this.#tryLock(address));
    for (let held = heldOf(physicalFunctions); held.length > 0; held = heldOf(held)) {
      if (clock.monotonicMs() >= endMs) return;
      await clock.sleep(AGAIN_MS, signal);
    }
  }

  /** The part of the list that may be observed and written to now: all but what another process has. */
  ours({ physicalFunctions }: PfConfig): PfConfig {
    for (const address of [...this.#refused.keys()]) {
      if (!physicalFunctions.some((entry) => entry.address === address)) this.#accept(address);
    }
    return { physicalFunctions: physicalFunctions.filter(({ address }) => this.#isOurs(address)) };
  }

  /** Whether another process has one that we want: its end is no event. */
  get isWaiting(): boolean {
    return this.#refused.size > 0;
  }

  problemOf(address: PciAddress): string | undefined {
    return this.#refused.get(address);
  }

  close(): void {
    for (const lock of this.#locks.values()) lock.release();
    this.#locks.clear();
  }

  #isOurs(address: PciAddress): boolean {
    return this.#tryLock(address) ? this.#accept(address) : this.#refuse(address);
  }

  #tryLock(address: PciAddress): boolean {
    const known = this.#locks.get(address);
    if (known?.isCurrent()) return true;
    known?.release(); // of an adapter that has left its slot
    this.#locks.delete(address);
    try {
      const lock = this.#options.locks.pf(address);
      if (lock === undefined) return false;
      this.#locks.set(address, lock);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      // Not there: its observation says so. What else there is must not keep a node from serving.
      if (error.code !== "ENOENT") this.#options.log.warn("pf-not-locked", { pf: address, error: error.message });
    }
    return true;
  }

  #accept(address: PciAddress): true {
    if (this.#refused.delete(address)) this.#options.log.info("pf-taken-over", { pf: address });
    this.#heldElsewhere.clear(address);
    return true;
  }

  #refuse(address: PciAddress): false {
    const problem =
      `Cannot use physical function ${address}: another forwarder on this node has it. Nothing of it is touched, and it is taken over when ` +
      "that one ends. Two releases on one node need lists of different physical functions; lslocks on the node shows the process";
    if (!this.#refused.has(address)) this.#options.log.error("pf-held-elsewhere", { pf: address });
    this.#refused.set(address, problem);
    this.#heldElsewhere.raise(problem, address);
    return false;
  }
}
