import { toBinary } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../../gen/connection_pb.ts";
import { withoutTokens } from "../path.ts";
import type { ConnectionContent, ConnectionRecord } from "./connections.ts";

/** Remembers on disk what is so, before it is. Each call resolves when the entry is safe. */
export interface ConnectionJournal {
  /** What a previous instance left and nothing has continued yet, by `connectionId`. */
  readonly left?: ReadonlyMap<string, JournalEntry>;
  /** Calls back with its id when one of `left` is dropped, also by another module: nothing continues it any more. */
  onLeftDropped?(listener: (connectionId: string) => void): void;
  put(entry: JournalEntry): Promise<void>;
  drop(connectionId: string): Promise<void>;
}

/** What the next instance must know of a connection to continue it, or to take it down. */
export type JournalEntry = KeptConnection &
  ({ readonly mechanism: "NOOP" } | { readonly mechanism: "KERNEL" | "VFIO"; readonly tokenId: string });

interface KeptConnection {
  /** By what it is known here: connection-key.ts. */
  readonly connectionId: string;
  /** On its path, where that is another one. */
  readonly id?: string;
  readonly owner: {
    readonly spiffeId: string;
    readonly isManager: boolean;
    readonly client?: string;
    readonly origin?: string;
  };
  readonly stage: "preparing" | "ready" | "reclaiming";
  /** The connection as of the last answer, or as requested while preparing; in protobuf form, without tokens. */
  readonly connection?: Uint8Array;
  /** Unix time in ms until which it was to be refreshed. */
  readonly expiresMs?: number;
  /** Unix time in ms of the first start since its client was heard of; undefined where it was heard of since the last start. */
  readonly unheardMs?: number;
}

/** What is kept of a connection at this stage, on disk without tokens: those are secrets, and their times change at each refresh. */
export function journalEntry(
  { id, owner }: Pick<ConnectionRecord, "id" | "owner">,
  { desired, connection }: Pick<ConnectionContent, "desired" | "connection">,
  stage: JournalEntry["stage"],
): JournalEntry {
  return {
    connectionId: id,
    ...(connection.id !== id && { id: connection.id }),
    owner,
    stage,
    ...(desired.type === "NOOP" ? { mechanism: desired.type } : { mechanism: desired.type, tokenId: desired.tokenId }),
    connection: toBinary(ConnectionSchema, withoutTokens(connection, "and their times")),
  };
}
