import type { Connection } from "../../gen/connection_pb.ts";
import { InventoryError } from "../../inventory/index.ts";
import type { ConnectionRecord, Connections } from "./connections.ts";

/** The client's own connection: the first segment of its path, which stays the same on every path that it comes by. */
export function clientOf({ path }: Connection): string | undefined {
  const [first] = path?.pathSegments ?? [];
  return first && JSON.stringify([first.name, first.id]);
}

/** The connection that holds the VF of the token that another one was refused for. */
export function holderOf(connections: Connections, refusal: unknown): ConnectionRecord | undefined {
  if (!(refusal instanceof InventoryError) || refusal.fault.kind !== "token-in-use") return undefined;
  return connections.get(refusal.fault.connectionId);
}

/**
 * Whether the holder is an earlier path of the same client's connection: a client and a manager that restarted together come
 * back on a new path, with the token of the old one, and so does a client that tries again while its cancelled Request is still
 * being undone.
 */
export function isEarlierPath(holder: ConnectionRecord, connection: Connection): boolean {
  return holder.client !== undefined && holder.client === clientOf(connection);
}
