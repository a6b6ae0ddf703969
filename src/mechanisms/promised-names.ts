// Names that VFs with clients have in the host: no link has one now, and none of ours may take it meanwhile.
import type { PciAddress } from "../pci/index.ts";
import type { NodeJournal } from "./connection-journal.ts";

/**
 * Whether another VF than that one is to have the name again when its client leaves it. It had it before, then: a VF that had another
 * one, or of which something else was not as the host had it, waits for its name itself.
 */
export function isNamePromised(
  { vfs, unrestored }: Pick<NodeJournal, "vfs" | "unrestored">,
  address: PciAddress,
  name: string,
): boolean {
  return [...vfs.values()].some(
    (entry) =>
      entry.use === "kernel" &&
      entry.address !== address &&
      entry.state.original.name === name &&
      !unrestored.has(entry.address),
  );
}
