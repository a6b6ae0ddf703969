// Names that VFs with clients have in the host: no link has one now, and none of ours may take it meanwhile.
import { conditionOf, type Inventory, isBeingRestored, type VfRecord } from "../inventory/index.ts";
import type { OthersNames } from "../netdev/index.ts";
import type { PciAddress } from "../pci/index.ts";
import type { NodeJournal } from "./connection-journal.ts";
import type { VfEntry } from "./journal-entries.ts";

interface NamesParts {
  readonly journal: Pick<NodeJournal, "vfs" | "unrestored">;
  readonly inventory: Pick<Inventory, "get">;
}

/**
 * For that VF. A name is promised to a VF that had it before its client: one that waits for its name itself had another. What only the
 * journal has of a VF promises nothing, for it may have no end, as where its PF is not managed any more.
 */
export function othersNames({ journal, inventory }: NamesParts, address: PciAddress): OthersNames {
  const { vfs, unrestored } = journal;
  const nameOf = (entry: VfEntry) =>
    (entry.use === "kernel" ? entry : unrestored.beforeOf(entry.address))?.state.original.name;
  const isPromisedTo = (entry: VfEntry, name: string) =>
    entry.address !== address &&
    nameOf(entry) === name &&
    !unrestored.isNameTaken(entry.address) &&
    isComingBack(inventory.get(entry.address));
  return {
    isPromised: (name) => [...vfs.values()].some((entry) => isPromisedTo(entry, name)),
    isKeptBy: (pciFunction) => !isComingBack(inventory.get(pciFunction as PciAddress)),
  };
}

/** Whether a connection has it, or it is being made what it was: not where that fails, or something else keeps it from that. */
function isComingBack(vf: VfRecord | undefined): boolean {
  if (!vf || conditionOf(vf, "gone")) return false;
  if (vf.connectionId !== undefined) return true;
  return !conditionOf(vf, "host-use") && (vf.state === "reclaiming" || isBeingRestored(vf.conditions));
}
