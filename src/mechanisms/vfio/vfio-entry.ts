// What is kept on disk of a VF that a pod may open: before each change, so that a restart can revoke all of it.
import type { DeviceAccess, DeviceGrant, GrantState } from "../../access/index.ts";
import type { VfSettings } from "../../netdev/index.ts";
import type { VfJournal } from "../connection-journal.ts";
import type { VfioVfEntry } from "../journal-entries.ts";

/** The journal's entry of one VF, as it is now. */
export class VfioEntry {
  readonly #journal: Pick<VfJournal, "keepVf">;
  #kept: VfioVfEntry;

  constructor(journal: Pick<VfJournal, "keepVf">, kept: VfioVfEntry) {
    this.#journal = journal;
    this.#kept = kept;
  }

  get kept(): VfioVfEntry {
    return this.#kept;
  }

  /** Resolves when it is on disk. */
  readonly keepGrant = (grant: GrantState): Promise<void> => this.#keep({ grant });
  readonly keepBefore = (before: VfSettings, device: string | undefined): Promise<void> =>
    this.#keep({ before, ...(device !== undefined && { device }) });

  async #keep(news: Partial<VfioVfEntry>): Promise<void> {
    this.#kept = { ...this.#kept, ...news };
    await this.#journal.keepVf(this.#kept);
  }
}

/** What the previous instance gave to a pod: to be continued, or to be revoked. */
export interface AdoptedGrant {
  readonly entry: VfioEntry;
  readonly grant: DeviceGrant | undefined;
}

/** Grants of the previous instance, by their connection, until that is continued or they are revoked. */
export class AdoptedGrants {
  readonly #byConnection = new Map<string, AdoptedGrant>();

  /** From now on the access is kept as it was given. Idempotent; touches nothing on the node. */
  adopt(
    kept: VfioVfEntry,
    { access, journal }: { readonly access: DeviceAccess; readonly journal: Pick<VfJournal, "keepVf"> },
  ): AdoptedGrant {
    const known = this.#byConnection.get(kept.connectionId);
    if (known?.entry.kept.address === kept.address) return known;
    const entry = new VfioEntry(journal, kept);
    const adopted = { entry, grant: kept.grant && access.adopt(kept.grant, entry.keepGrant) };
    this.#byConnection.set(kept.connectionId, adopted);
    return adopted;
  }

  /** The caller continues or has revoked it. Undefined where there is none of that connection on that VF; what there is else stays. */
  take({ connectionId, address }: Pick<VfioVfEntry, "connectionId" | "address">): AdoptedGrant | undefined {
    const adopted = this.#byConnection.get(connectionId);
    if (adopted?.entry.kept.address !== address) return undefined;
    this.#byConnection.delete(connectionId);
    return adopted;
  }
}
