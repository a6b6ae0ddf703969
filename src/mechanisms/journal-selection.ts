// What a start keeps of the journal: every VF that is out and its connection, and of the others as many as their owners may have.
import type { Selection } from "../journal/index.ts";
import { type Held, quotaExcess } from "../nsm/index.ts";

import type { StoredConnection, StoredEntry } from "./journal-entries.ts";

export const CONNECTION = "connection ";
export const VF = "vf ";

/** What was left out, for the log. */
export interface LeftOut {
  count: number;
  bytes: number;
  /** Of the first: who had too much of what. */
  first: (ReturnType<typeof quotaExcess> & { readonly connection: string; readonly owner: string }) | undefined;
}

/**
 * A connection whose VF is out is kept whatever its size: without it the VF could not be restored. `leftOut` is filled while the
 * journal is read.
 */
export function journalSelection(leftOut: LeftOut): Selection<StoredEntry> {
  const isOut = new Set<string>();
  const held: Held[] = [];
  return {
    rank: (key) => (key.startsWith(VF) ? 0 : 1),
    keeps(key, value) {
      if (!key.startsWith(CONNECTION) || "address" in value) {
        if (key.startsWith(VF)) isOut.add(value.connectionId);
        return true;
      }
      const one = heldBy(value);
      const excess = isOut.has(one.id) ? undefined : quotaExcess(held, one);
      if (!excess) {
        held.push(one);
        return true;
      }
      leftOut.count += 1;
      leftOut.bytes += one.bytes;
      leftOut.first ??= { connection: one.id, owner: one.owner.spiffeId, ...excess };
      return false;
    },
  };
}

function heldBy({ connectionId: id, owner, mechanism, connection = "" }: StoredConnection): Held {
  return { id, owner, holdsVf: mechanism !== "NOOP", bytes: Buffer.byteLength(connection, "base64") };
}
