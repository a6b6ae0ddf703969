// What the journal has of VFs. The settings that the host had made of a network device are most of an entry and do not change while it
// is out, so they have a record of their own, which is written once.
import type { Journal } from "../journal/index.ts";
import type { PciAddress } from "../pci/index.ts";
import {
  readVf,
  type StoredEntry,
  type StoredSettings,
  storedSettings,
  storedVf,
  type VfEntry,
} from "./journal-entries.ts";
import { SETTINGS, VF } from "./journal-selection.ts";

export class KeptVfs {
  readonly vfs = new Map<PciAddress, VfEntry>();
  readonly #journal: Pick<Journal<StoredEntry>, "put" | "drop">;
  /** As the journal has them. */
  readonly #settings = new Map<PciAddress, StoredSettings>();

  constructor(journal: Pick<Journal<StoredEntry>, "put" | "drop">, found: ReadonlyMap<string, StoredEntry>) {
    this.#journal = journal;
    for (const [key, stored] of found) {
      if (key.startsWith(SETTINGS) && "kept" in stored) this.#settings.set(stored.address, stored);
    }
    for (const [key, stored] of found) {
      const vf = key.startsWith(VF) ? readVf(stored, (address) => this.#settings.get(address)) : undefined;
      if (vf) this.vfs.set(vf.address, vf);
    }
  }

  /** Resolves when it is on disk. @throws {JournalError} */
  async keep(entry: VfEntry): Promise<void> {
    const { address } = entry;
    this.vfs.set(address, entry);
    const settings = storedSettings(entry);
    // Both are one write.
    const written = settings && !this.#has(settings) ? this.#keepSettings(settings) : undefined;
    await Promise.all([written, this.#journal.put(`${VF}${address}`, storedVf(entry))]);
  }

  #has({ address, connectionId, kept }: StoredSettings): boolean {
    const known = this.#settings.get(address);
    return known?.kept === kept && known.connectionId === connectionId;
  }

  #keepSettings(settings: StoredSettings): Promise<void> {
    const { address } = settings;
    this.#settings.set(address, settings);
    return this.#journal.put(`${SETTINGS}${address}`, settings);
  }

  /** Resolves when it is gone from the disk. @throws {JournalError} */
  async forget(address: PciAddress): Promise<void> {
    this.vfs.delete(address);
    this.#settings.delete(address);
    await Promise.all([VF, SETTINGS].map((kind) => this.#journal.drop(`${kind}${address}`)));
  }
}
