import { clone, toBinary } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema } from "../../gen/connection_pb.ts";
import type { JournalEntry } from "../needs.ts";
import type { ConnectionRecord } from "./connections.ts";

/** What is kept of a connection at this stage. */
export function journalEntry(
  { id, owner, wanted, connection }: ConnectionRecord,
  stage: JournalEntry["stage"],
): JournalEntry {
  return {
    connectionId: id,
    owner,
    stage,
    ...(!wanted || wanted.type === "NOOP"
      ? ({ mechanism: "NOOP" } as const)
      : { mechanism: wanted.type, tokenId: wanted.tokenId }),
    ...(connection ? { connection: toBinary(ConnectionSchema, withoutTokens(connection)) } : {}),
  };
}

/** The connection without what expires: tokens are secrets, and their times change with each refresh. */
export function withoutTokens(connection: Connection): Connection {
  const copy = clone(ConnectionSchema, connection);
  for (const segment of copy.path?.pathSegments ?? []) {
    segment.token = "";
    delete segment.expires;
  }
  return copy;
}
