// VFs that are not as the host had them, though no client has them any more.
import { messageOf } from "../async/index.ts";
import type { BeforeClient } from "../inventory/index.ts";
import type { Journal } from "../journal/index.ts";
import type { PciAddress } from "../pci/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { StoredEntry, UnrestoredVf } from "./journal-entries.ts";
import { UNRESTORED } from "./journal-selection.ts";

type UnrestoredNews = { readonly [Key in keyof Omit<UnrestoredVf, "address">]: UnrestoredVf[Key] | undefined };

/** What the journal has of them: until they are as the host had them, also while a client has them. */
export class UnrestoredVfs {
  readonly #all = new Map<PciAddress, UnrestoredVf>();
  readonly #journal: Pick<Journal<StoredEntry>, "put" | "drop">;
  readonly #log: Log;
  #writing: Promise<void> = Promise.resolve();

  constructor(
    journal: Pick<Journal<StoredEntry>, "put" | "drop">,
    found: ReadonlyMap<string, StoredEntry>,
    { log }: { readonly log: Log },
  ) {
    this.#journal = journal;
    this.#log = log;
    for (const [key, stored] of found) {
      if (key.startsWith(UNRESTORED) && "address" in stored && !("connectionId" in stored)) {
        this.#all.set(stored.address, stored);
      }
    }
  }

  get addresses(): readonly PciAddress[] {
    return [...this.#all.keys()];
  }

  /** How the host had it. Undefined where it is so, and where nothing is known of that. */
  beforeOf(address: PciAddress): BeforeClient | undefined {
    return this.#all.get(address)?.before;
  }

  has(address: PciAddress): boolean {
    return this.#all.has(address);
  }

  /** The address that it had chosen itself when VFIO got it, as far as that is known. */
  chosenMacOf(address: PciAddress): string | undefined {
    return this.#all.get(address)?.chosenMac;
  }

  /** Whether its name was another link's when it was last given back. */
  isNameTaken(address: PciAddress): boolean {
    return this.#all.get(address)?.isNameTaken ?? false;
  }

  /** Whether a client may still have its network device. */
  isNewNeeded(address: PciAddress): boolean {
    const known = this.#all.get(address);
    return known !== undefined && (known.isNewNeeded ?? known.before === undefined);
  }

  /** In which boot it was so; undefined where that is not known. An earlier version had that with the settings only. */
  bootOf(address: PciAddress): string | undefined {
    const known = this.#all.get(address);
    return known?.boot ?? known?.before?.state.kept?.boot;
  }

  /**
   * What is not said stays as it was. Resolves when it is on disk; writes nothing that it has, and waits for what is being written.
   * @throws {JournalError}
   */
  async keep(address: PciAddress, news: UnrestoredNews): Promise<void> {
    const known = this.#all.get(address);
    const said = Object.fromEntries(Object.entries(news).filter(([, value]) => value !== undefined));
    const unrestored: UnrestoredVf = { address, ...known, ...said, ...(news.before && { before: plain(news.before) }) };
    if (known && isSame(known, unrestored)) return await this.#writing.catch(() => {});
    this.#all.set(address, unrestored);
    this.#writing = this.#journal.put(`${UNRESTORED}${address}`, unrestored);
    await this.#writing;
  }

  /** It is as the host had it, or gone. What fails is reported, and made up for. */
  forget(address: PciAddress): void {
    if (!this.#all.delete(address)) return;
    const failed = (error: unknown) => this.#log.warn("vf-not-forgotten", { vf: address, error: messageOf(error) });
    void this.#journal.drop(`${UNRESTORED}${address}`).catch(failed);
  }
}

/** It may be a whole entry of the journal. */
function plain({ connectionId, state }: BeforeClient): BeforeClient {
  return connectionId === undefined ? { state } : { connectionId, state };
}

function isSame(one: UnrestoredVf, other: UnrestoredVf): boolean {
  const rest = (["isNewNeeded", "isNameTaken", "boot", "chosenMac"] as const).every((key) => one[key] === other[key]);
  return rest && one.before?.state === other.before?.state;
}
