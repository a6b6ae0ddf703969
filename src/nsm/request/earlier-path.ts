import { type Connection, State } from "../../gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../gen/networkservice_pb.ts";
import { InventoryError } from "../../inventory/index.ts";
import { NsmError } from "../fault.ts";
import type { CallFiles } from "../mechanism/call-files.ts";
import { type DesiredMechanism, isSamePlace, mechanismChoices } from "../mechanism/requested-mechanism.ts";
import { nextSegment } from "../path.ts";
import type { AdmittedCaller } from "../permission/authorize.ts";
import { type ActingPeer, type ManagerSource, mayAct } from "../permission/connection-owner.ts";
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

/** A Request by a path that we do not know, before it is judged. */
export interface Comer {
  readonly acting: ActingPeer;
  readonly id: string;
  readonly client: string | undefined;
  /** What it is after of this node, in the order to try it; read when it is needed first. */
  readonly desired: () => readonly DesiredMechanism[];
}

/** Nothing of the message is read yet, for its caller is not admitted. */
export function comerOf(acting: ActingPeer, connection: Connection, message: NetworkServiceRequest): Comer {
  let desired: readonly DesiredMechanism[] | undefined;
  const read = () => {
    desired ??= desiredOf(message);
    return desired;
  };
  return { acting, id: connection.id, client: clientOf(connection), desired: read };
}

interface KnownConnections {
  readonly connections: Connections;
  readonly manager: ManagerSource;
}

/**
 * The connection that this Request continues by another path: the same client connection, of the same client, with the same token and in the
 * same namespace or cgroup. Nothing of it is taken down for that, it only gets the new path, and with it a new id.
 */
export function earlierPathOf(known: KnownConnections, comer: Comer): ConnectionRecord | undefined {
  for (const record of known.connections.values()) if (continues(known, record, comer)) return record;
  return undefined;
}

/** Whether a call that came to this record by its key is for it, still: it may be another client connection's by now. */
export function leadsTo(known: KnownConnections, record: ConnectionRecord, comer: Comer): boolean {
  return record.state.connection.id === comer.id || continues(known, record, comer);
}

/** What any peer can have much of is passed over first. */
function continues({ manager }: KnownConnections, record: ConnectionRecord, comer: Comer): boolean {
  if (!record.holdsVf || record.client === undefined || record.client !== comer.client) return false;
  if (!mayAct(comer.acting, record.owner, manager)) return false;
  return comer.desired().some((desired) => isSamePlace(record.state.desired, desired));
}

/** What cannot be read is refused later, with its reason. */
function desiredOf(message: NetworkServiceRequest): readonly DesiredMechanism[] {
  try {
    return mechanismChoices(message).flatMap((choice) => {
      try {
        return [choice.read()];
      } catch {
        return [];
      }
    });
  } catch {
    return [];
  }
}

/**
 * Lets the new path lead on where the earlier one has led, in place: the endpoint finds its own segment, continues, and answers the same
 * again. Not where the client chooses again, and not where it names another endpoint.
 */
export function leadOn(connection: Connection, { state }: ConnectionRecord): void {
  const { networkServiceEndpointName: requested, path } = connection;
  const before = state.connection;
  const isSame = requested === "" || requested === before.networkServiceEndpointName;
  if (!path || nextSegment(connection) || !isSame || connection.state === State.RESELECT_REQUESTED) return;
  path.pathSegments.push(...(before.path?.pathSegments.slice(before.path.index + 1) ?? []).map((one) => ({ ...one })));
}

/** The Request that wanted the token. */
interface Refused {
  readonly connection: Connection;
  readonly caller: AdmittedCaller;
  readonly files: CallFiles;
  readonly signal: AbortSignal;
}

/**
 * Waits until the connection that holds the refused token has ended: an earlier path of the same client's is ended, one that is on its
 * way out is waited for. @throws the refusal, where the holder stays.
 */
export async function endHolder(
  deps: TeardownDeps & { readonly manager: ManagerSource },
  { connection, caller, files, signal }: Refused,
  refusal: unknown,
): Promise<void> {
  const holder = holderOf(deps.connections, refusal);
  if (!holder) throw refusal;
  if (isEarlierPath(holder, connection) && mayAct(caller.acting, holder.owner, deps.manager)) {
    // It is the same client's: its namespace has come with this call. Where its Request is still being undone, that comes first.
    await takeDownInTurn(deps, holder, { reason: "superseded", files, signal });
  } else if (holder.state.phase === "reclaiming") {
    // On its way out: its pod is gone and kubelet has given the token to this one, or its time is up.
    await deps.turns.run(holder.id, async () => {}, signal);
  } else {
    // The caller does not get to know whose it is.
    const { spiffeId, client } = caller.acting;
    deps.log.warn("token-in-use", { connection: connection.id, holder: holder.id, caller: spiffeId, client });
    // Id and token are the other one's: it is that connection which the caller is after.
    if (holder.state.connection.id === connection.id) throw new NsmError({ kind: "not-the-owner", id: connection.id });
    throw refusal;
  }
}
