import type { Connection } from "../gen/connection_pb.ts";
import { InventoryError } from "../sriov/index.ts";
import type { ConnectionRecord, Connections } from "./connections.ts";

/**
 * The connection that holds what this one was refused, if it is an earlier path of the same client's connection: a client
 * and a manager that restarted together come back on a new path, with the token of the old one. A token that any other
 * connection holds stays refused.
 */
export function supersededBy(
  connections: Connections,
  refusal: unknown,
  connection: Connection,
): ConnectionRecord | undefined {
  if (!(refusal instanceof InventoryError) || refusal.fault.kind !== "token-in-use") return undefined;
  const holder = connections.get(refusal.fault.connectionId);
  const before = holder?.connection?.path?.pathSegments[0];
  const now = connection.path?.pathSegments[0];
  return before && now && before.id === now.id && before.name === now.name ? holder : undefined;
}
