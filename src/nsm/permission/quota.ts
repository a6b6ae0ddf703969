// How many connections one owner may have on this node, and how many bytes of them are kept: docs/decisions/031 and 047.
import { toBinary } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema } from "../../gen/connection_pb.ts";
import type { QuotaExcess } from "../fault.ts";
import { clientShare } from "./client-behind.ts";
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

interface OwnerShare {
  readonly vf: Share;
  readonly noop: Share;
}

/** What owners may have on this node. */
export interface Quota {
  /** Most connections come through the manager, and only what it leaves idle could be given to others. */
  readonly manager: OwnerShare;
  /** Each other SPIFFE ID. */
  readonly other: OwnerShare;
  /** All SPIFFE IDs but the manager together: one peer can have many names. */
  readonly others: Share;
}

const KIB = 1024;

/** Encoded bytes of one connection. Stock ones have 2 to 12 KiB, tokens included. */
export const CONNECTION_BYTES = 64 * KIB;
/** Room for a stock one. */
const STOCK_CONNECTION_BYTES = 16 * KIB;

/**
 * A connection made of thousands of empty messages takes some seventy times its encoded bytes of memory, and the pod has 256 MiB of
 * which 100 are in use at rest: what needs no token is 1 MiB together. Connections with a VF and without do not take each other's place.
 */
export const QUOTA: Quota = {
  manager: {
    vf: { connections: 1_024, bytes: 8 * KIB * KIB },
    noop: { connections: 128, bytes: 512 * KIB },
  },
  other: {
    vf: { connections: 64, bytes: 256 * KIB },
    noop: { connections: 16, bytes: 128 * KIB },
  },
  others: { connections: 256, bytes: 512 * KIB },
};

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
export function quotaExcess(held: Iterable<Held>, requested: Held, quota = QUOTA): QuotaExcess | undefined {
  if (requested.bytes > CONNECTION_BYTES) {
    return { limitOf: "connection-bytes", used: requested.bytes, limit: CONNECTION_BYTES };
  }
  const { isManager, client } = requested.owner;
  const [own, ofClient, others] = [new Tally(requested), new Tally(requested), new Tally(requested)];
  for (const one of held) {
    const isOwn = isSameOwner(one.owner, requested.owner) && one.holdsVf === requested.holdsVf;
    if (isOwn) own.add(one);
    if (isOwn && one.owner.client === client) ofClient.add(one);
    if (!one.owner.isManager) others.add(one);
  }
  const share = quota[isManager ? "manager" : "other"][requested.holdsVf ? "vf" : "noop"];
  const excess = own.excess("owner", share);
  if (excess || !isManager) return excess ?? others.excess("others", quota.others);
  return client === undefined ? undefined : ofClient.excess("client", shareBehind(share, own, ofClient));
}

/** What the client may have of the manager's share: client-behind.ts. */
function shareBehind(share: Share, all: Tally, own: Tally): Share {
  return {
    connections: clientShare(share.connections, all.connections - own.connections),
    bytes: clientShare(share.bytes, all.bytes - own.bytes, STOCK_CONNECTION_BYTES),
  };
}

function isSameOwner(a: Owner, b: Owner): boolean {
  // What one manager made belongs to the next: connection-owner.ts.
  return a.isManager ? b.isManager : !b.isManager && a.spiffeId === b.spiffeId;
}

class Tally {
  readonly #requested: Held;
  connections = 0;
  bytes = 0;
  #before: number | undefined;

  constructor(requested: Held) {
    this.#requested = requested;
  }

  add({ id, bytes }: Held): void {
    if (id === this.#requested.id) this.#before = bytes;
    else {
      this.connections += 1;
      this.bytes += bytes;
    }
  }

  excess(whose: "owner" | "client" | "others", share: Share): QuotaExcess | undefined {
    const [before, { bytes }] = [this.#before, this.#requested];
    if (before === undefined && this.connections >= share.connections) {
      return { limitOf: `${whose}-connections`, used: this.connections, limit: share.connections };
    }
    const used = this.bytes + bytes;
    if (used > share.bytes && bytes > (before ?? 0)) return { limitOf: `${whose}-bytes`, used, limit: share.bytes };
    return undefined;
  }
}
