// How many connections one owner may have on this node, and how many bytes of them are kept: docs/decisions/031.
import { toBinary } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema } from "../../gen/connection_pb.ts";
import type { QuotaExcess } from "../fault.ts";
import type { Owner } from "./connection-owner.ts";

/** One connection as it counts. */
export interface Held {
  readonly id: string;
  readonly owner: Owner;
  /** KERNEL or VFIO: it needs a token, of which this node has only so many. NOOP needs none, and has a smaller share. */
  readonly holdsVf: boolean;
  /** As `sizeOf` counts them. */
  readonly bytes: number;
}

interface Share {
  readonly connections: number;
  readonly bytes: number;
}

const KIB = 1024;

/** Encoded bytes of one connection. Stock ones have 2 to 12 KiB, tokens included. */
export const CONNECTION_BYTES = 64 * KIB;

/**
 * A connection made of thousands of empty messages takes some seventy times its encoded bytes of memory, and the pod has 256 MiB of
 * which 100 are in use at rest: what needs no token is 1 MiB together. Connections with a VF and without do not take each other's place.
 */
export const QUOTA = {
  /** Most connections come through the manager, and only what it leaves idle could be given to others. */
  manager: {
    vf: { connections: 1_024, bytes: 8 * KIB * KIB },
    noop: { connections: 128, bytes: 512 * KIB },
  },
  /** Each other SPIFFE ID. */
  other: {
    vf: { connections: 64, bytes: 256 * KIB },
    noop: { connections: 16, bytes: 128 * KIB },
  },
  /** All SPIFFE IDs but the manager together: one peer can have many names. */
  others: { connections: 256, bytes: 512 * KIB },
} as const;

/** Bytes are counted in units of this size: a token that is some characters longer is no growth. */
const UNIT_BYTES = KIB;

/** What a connection counts: its encoded bytes with its tokens, rounded up. */
export function sizeOf(connection: Connection): number {
  return Math.ceil(toBinary(ConnectionSchema, connection).length / UNIT_BYTES) * UNIT_BYTES;
}

/**
 * What one more connection, or another size of one that is among the held, would exceed. The number of connections is no
 * reason against one that is held already, nor are the bytes as long as it does not grow.
 */
export function quotaExcess(held: Iterable<Held>, asked: Held): QuotaExcess | undefined {
  if (asked.bytes > CONNECTION_BYTES) {
    return { limitOf: "connection-bytes", used: asked.bytes, limit: CONNECTION_BYTES };
  }
  const { isManager } = asked.owner;
  const [own, others] = [new Tally(asked), new Tally(asked)];
  for (const one of held) {
    if (isSameOwner(one.owner, asked.owner) && one.holdsVf === asked.holdsVf) own.add(one);
    if (!one.owner.isManager && !isManager) others.add(one);
  }
  const share = QUOTA[isManager ? "manager" : "other"][asked.holdsVf ? "vf" : "noop"];
  return own.excess("owner", share) ?? (isManager ? undefined : others.excess("others", QUOTA.others));
}

function isSameOwner(a: Owner, b: Owner): boolean {
  // What one manager made belongs to the next: connection-owner.ts.
  return a.isManager ? b.isManager : !b.isManager && a.spiffeId === b.spiffeId;
}

class Tally {
  readonly #asked: Held;
  #connections = 0;
  #bytes = 0;
  #before: number | undefined;

  constructor(asked: Held) {
    this.#asked = asked;
  }

  add({ id, bytes }: Held): void {
    if (id === this.#asked.id) this.#before = bytes;
    else {
      this.#connections += 1;
      this.#bytes += bytes;
    }
  }

  excess(whose: "owner" | "others", share: Share): QuotaExcess | undefined {
    const [before, { bytes }] = [this.#before, this.#asked];
    if (before === undefined && this.#connections >= share.connections) {
      return { limitOf: `${whose}-connections`, used: this.#connections, limit: share.connections };
    }
    const used = this.#bytes + bytes;
    if (used > share.bytes && bytes > (before ?? 0)) return { limitOf: `${whose}-bytes`, used, limit: share.bytes };
    return undefined;
  }
}
