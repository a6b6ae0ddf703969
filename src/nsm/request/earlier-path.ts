import type { Connection } from "../../gen/connection_pb.ts";
import { InventoryError } from "../../inventory/index.ts";
import type { CallFiles } from "../mechanism/call-files.ts";
import type { Attachment } from "../mechanism/mechanism.ts";
import type { AdmittedCaller } from "../permission/authorize.ts";
import { type ManagerSource, mayAct } from "../permission/connection-owner.ts";
import type { ConnectionRecord, Connections } from "./connections.ts";
import { type TeardownDeps, takeDownInTurn } from "./teardown.ts";

/** The client's own connection: the first segment of its path, which stays the same on every path that it comes by. */
export function clientOf({ path }: Connection): string | undefined {
  const [first] = path?.pathSegments ?? [];
  return first && JSON.stringify([first.name, first.id]);
}

/** The connection that holds the VF of the token that another one was refused for. */
function holderOf(connections: Connections, refusal: unknown): ConnectionRecord | undefined {
  if (!(refusal instanceof InventoryError) || refusal.fault.kind !== "token-in-use") return undefined;
  return connections.get(refusal.fault.connectionId);
}

/**
 * Whether the holder is an earlier path of the same client's connection: a client and a manager that restarted together come
 * back on a new path, with the token of the old one, and so does a client that tries again while its cancelled Request is still
 * being undone.
 */
function isEarlierPath(holder: ConnectionRecord, connection: Connection): boolean {
  return holder.client !== undefined && holder.client === clientOf(connection);
}

interface Opening {
  readonly connection: Connection;
  readonly caller: AdmittedCaller;
  readonly files: CallFiles;
  readonly signal: AbortSignal;
}

/** Reserves the VF; takes it from an earlier path of the same client's connection, and waits for one that ends. */
export async function openAttachment(
  deps: TeardownDeps & { readonly manager: ManagerSource },
  { connection, caller, files, signal }: Opening,
  open: () => Promise<Attachment>,
): Promise<Attachment> {
  try {
    return await open();
  } catch (error) {
    const holder = holderOf(deps.connections, error);
    if (!holder) throw error;
    if (isEarlierPath(holder, connection) && mayAct(caller.peer.spiffeId, holder.owner, deps.manager)) {
      // It is the same client's: its namespace has come with this call. Where its Request is still being undone, that comes first.
      await takeDownInTurn(deps, holder, { reason: "superseded", files, signal });
    } else if (holder.state.phase === "reclaiming") {
      // On its way out: its pod is gone and kubelet has given the token to this one, or its time is up.
      await deps.turns.run(holder.id, async () => {}, signal);
    } else {
      throw error;
    }
    return await open();
  }
}
