// What a start keeps of the journal: every VF that is out and its connection, and of the others as many as their owners may have.
import type { Selection } from "../journal/index.ts";
import { type Held, type Quota, quotaExcess } from "../nsm/index.ts";
import type { StoredConnection, StoredEntry } from "./journal-entries.ts";

export const CONNECTION = "connection ";
export const VF = "vf ";
/** To a version that does not know these they are other kinds, so that it leaves them in the file. */
export const SETTINGS = "settings ";
export const UNRESTORED = "unrestored ";
/** Those that this version reads; a value of another kind may be anything. */
const OURS = [CONNECTION, VF, SETTINGS, UNRESTORED];

/** What was left out, for the log. */
export interface LeftOut {
  count: number;
  bytes: number;
  /** Of the first: who had too much of what. */
  first: (ReturnType<typeof quotaExcess> & { readonly connection: string; readonly owner: string }) | undefined;
}

/**
 * A connection whose VF is out is kept whatever its size: without it the VF could not be restored. Settings are of such a VF, or of
 * none any more. `leftOut` is filled while the journal is read.
 */
export function journalSelection(leftOut: LeftOut, quota?: Quota): Selection<StoredEntry> {
  const isOut = new Set<string>();
  const held: Held[] = [];
  return {
    rank: (key) => (key.startsWith(VF) ? 0 : 1),
    keeps(key, value) {
      const kind = OURS.find((one) => key.startsWith(one));
      if (kind === undefined) return true;
      if (!isSound(kind, value)) return false;
      if (!key.startsWith(CONNECTION) || "address" in value) {
        if (!("connectionId" in value)) return true;
        if (key.startsWith(VF)) isOut.add(value.connectionId);
        return !key.startsWith(SETTINGS) || isOut.has(value.connectionId);
      }
      const one = heldBy(value);
      const excess = isOut.has(one.id) ? undefined : quotaExcess(held, one, quota);
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

/** The checksum of one that is not may be sound all the same. */
function isSound(kind: string, value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  return kind !== CONNECTION || ("owner" in value && typeof value.owner === "object" && value.owner !== null);
}

function heldBy({ connectionId: id, owner, mechanism, connection = "" }: StoredConnection): Held {
  return { id, owner, holdsVf: mechanism !== "NOOP", bytes: Buffer.byteLength(connection, "base64") };
}
