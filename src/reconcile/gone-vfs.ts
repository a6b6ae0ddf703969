// VFs of the journal that the node does not have: there is no record of them in the inventory.
import type { Clock } from "../async/index.ts";
import { conditionOf } from "../inventory/index.ts";
import type { KernelVfEntry, NodeJournal } from "../mechanisms/index.ts";
import type { Node } from "../node/index.ts";
import type { PciAddress } from "../pci/index.ts";

interface GoneVfsOptions {
  readonly node: Pick<Node, "inventory" | "binder" | "survey">;
  readonly journal: Pick<NodeJournal, "vfs" | "unrestored">;
  readonly intervalMs: number;
  readonly clock: Clock;
}

/** A VF that so many passes have not found has not only been reset. */
const GONE_INTERVALS = 12;

export class GoneVfs {
  readonly #options: GoneVfsOptions;
  readonly #absentSinceMs = new Map<PciAddress, number>();

  constructor(options: GoneVfsOptions) {
    this.#options = options;
  }

  /** The entries of those that are gone for good: their clients have lost the network device with them. */
  async observe(): Promise<readonly KernelVfEntry[]> {
    const { journal } = this.#options;
    const gone: KernelVfEntry[] = [];
    for (const entry of [...journal.vfs.values()]) {
      if (entry.use === "kernel" && (await this.#isGone(entry.address))) gone.push(entry);
    }
    for (const address of journal.unrestored.addresses) {
      if (await this.#isGone(address)) journal.unrestored.forget(address);
    }
    return gone;
  }

  /**
   * Of these, VFs that this process has known and that were destroyed: what comes under such an address again is another one, which the host
   * may have set otherwise. Not one that a client may have left somewhere: the PF may have that client's settings still.
   */
  async forgetDestroyed(addresses: Iterable<PciAddress>): Promise<void> {
    const { node, journal } = this.#options;
    for (const address of addresses) {
      if (!journal.unrestored.has(address) || journal.unrestored.isNewNeeded(address) || !this.#isLost(address))
        continue;
      const isPresent = await node.binder.isPresent(address).catch(() => true);
      if (!isPresent && this.#isLost(address)) journal.unrestored.forget(address);
    }
  }

  #isLost(address: PciAddress): boolean {
    const record = this.#options.node.inventory.get(address);
    return !record || conditionOf(record, "gone") !== undefined;
  }

  async #isGone(address: PciAddress): Promise<boolean> {
    const { clock, intervalMs } = this.#options;
    const isAbsent = await this.#isAbsent(address);
    const sinceMs = this.#absentSinceMs.get(address) ?? clock.monotonicMs();
    if (isAbsent && clock.monotonicMs() - sinceMs < GONE_INTERVALS * intervalMs) {
      this.#absentSinceMs.set(address, sinceMs);
      return false;
    }
    this.#absentSinceMs.delete(address);
    return isAbsent;
  }

  /** Not where we find no PF at all: the path may be wrong. */
  async #isAbsent(address: PciAddress): Promise<boolean> {
    const { node } = this.#options;
    if (node.inventory.get(address) !== undefined || node.survey.pfs.size === 0) return false;
    return !(await node.binder.isPresent(address).catch(() => true));
  }
}
