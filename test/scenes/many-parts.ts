import { create } from "@bufbuild/protobuf";
import type { Connection } from "../../src/gen/connection_pb.ts";
import { ConnectionContextSchema } from "../../src/gen/connectioncontext_pb.ts";

/** What takes the most memory for its bytes and is allowed: thousands of messages of two bytes each. */
export function manyParts(connection: Connection): void {
  const empty = (count: number) => Array.from({ length: count }, () => ({}));
  const ipContext = {
    extraPrefixRequest: empty(2_048),
    policies: empty(512),
    ipNeighbors: empty(512),
    srcRoutes: empty(512),
    dstRoutes: empty(512),
    excludedPrefixes: Array<string>(2_048).fill(""),
  };
  connection.context = create(ConnectionContextSchema, { dnsContext: { configs: empty(512) }, ipContext });
}
