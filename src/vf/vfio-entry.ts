// What is kept on disk of a function that a pod may open: before each change, so that a restart can take all of it back.
import type { DeviceAccess, DeviceGrant, GrantState } from "../access/index.ts";
import type { VfSettings } from "../netdev/index.ts";
import type { PciAddress } from "../sriov/index.ts";
import type { KeptVfio, VfJournal } from "./connection-journal.ts";

/** The journal's entry of one function, as it is now. */
export class VfioEntry {
  readonly #journal: Pick<VfJournal, "keepVf">;
  #kept: KeptVfio;

  constructor(journal: Pick<VfJournal, "keepVf">, kept: KeptVfio) {
    this.#journal = journal;
    this.#kept = kept;
  }

  get kept(): KeptVfio {
    return this.#kept;
  }

  /** Resolves when it is on disk. */
  readonly keepGrant = (grant: GrantState): Promise<void> => this.#keep({ grant });
  readonly keepBefore = (before: VfSettings): Promise<void> => this.#keep({ before });

  async #keep(news: Partial<KeptVfio>): Promise<void> {
    this.#kept = { ...this.#kept, ...news };
    await this.#journal.keepVf(this.#kept);
  }
}

/** What an earlier process gave to a pod: to be gone on with, or to be taken back. */
export interface EarlierGrant {
  readonly entry: VfioEntry;
  readonly grant: DeviceGrant | undefined;
}

/** Functions that pods have from an earlier process, until somebody has taken them over. */
export type EarlierGrants = Map<PciAddress, EarlierGrant>;

/** From now on the access is kept as the earlier process gave it. Touches nothing. */
export function adoptGrant(
  kept: KeptVfio,
  { access, journal }: { readonly access: DeviceAccess; readonly journal: Pick<VfJournal, "keepVf"> },
): EarlierGrant {
  const entry = new VfioEntry(journal, kept);
  return { entry, grant: kept.grant && access.adopt(kept.grant, entry.keepGrant) };
}
