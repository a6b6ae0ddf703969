import { toBinary } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../../gen/connection_pb.ts";
import type { JournalEntry } from "../dependencies.ts";
import type { ConnectionContent, ConnectionRecord } from "./connections.ts";
import { withoutTokens } from "./path.ts";

/** What is kept of a connection at this stage, on disk without tokens: those are secrets, and their times change at each refresh. */
export function journalEntry(
  { id, owner }: Pick<ConnectionRecord, "id" | "owner">,
  { wanted, connection }: Pick<ConnectionContent, "wanted" | "connection">,
  stage: JournalEntry["stage"],
): JournalEntry {
  return {
    connectionId: id,
    owner,
    stage,
    ...(wanted.type === "NOOP" ? { mechanism: wanted.type } : { mechanism: wanted.type, tokenId: wanted.tokenId }),
    connection: toBinary(ConnectionSchema, withoutTokens(connection, "and their times")),
  };
}
