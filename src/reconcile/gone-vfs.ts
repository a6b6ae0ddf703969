// VFs of the journal that the node does not have: there is no record of them in the inventory.
import type { Clock } from "../async/index.ts";
import type { KernelVfEntry, NodeJournal } from "../mechanisms/index.ts";
import type { Node } from "../node/index.ts";
import type { PciAddress } from "../pci/index.ts";

interface GoneVfsOptions {
  readonly node: Pick<Node, "inventory" | "binder" | "survey">;
  readonly journal: Pick<NodeJournal, "vfs">;
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
  async look(): Promise<readonly KernelVfEntry[]> {
    const { journal, clock, intervalMs } = this.#options;
    const gone: KernelVfEntry[] = [];
    for (const entry of [...journal.vfs.values()]) {
      const isAbsent = entry.use === "kernel" && (await this.#isAbsent(entry.address));
      const sinceMs = this.#absentSinceMs.get(entry.address) ?? clock.monotonicMs();
      if (isAbsent && clock.monotonicMs() - sinceMs < GONE_INTERVALS * intervalMs) {
        this.#absentSinceMs.set(entry.address, sinceMs);
        continue;
      }
      this.#absentSinceMs.delete(entry.address);
      if (isAbsent) gone.push(entry);
    }
    return gone;
  }

  /** Not where we find no PF at all: the path may be wrong. */
  async #isAbsent(address: PciAddress): Promise<boolean> {
    const { node } = this.#options;
    if (node.inventory.get(address) !== undefined || node.survey.pfs.size === 0) return false;
    return !(await node.binder.isPresent(address).catch(() => true));
  }
}
