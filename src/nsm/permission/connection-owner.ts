import type { Connection } from "../../gen/connection_pb.ts";
import type { PeerIdentity } from "../../rpc/index.ts";
import { type Behind, clientBehind } from "./client-behind.ts";

/** A caller, and for whom it calls. */
export interface ActingPeer extends Behind {
  /** By its certificate. */
  readonly spiffeId: string;
}

/** Who made a connection, and so who may refresh, close and watch it. */
export interface Owner extends ActingPeer {
  /** That peer was the manager we were registered with: a later manager takes its place. */
  readonly isManager: boolean;
}

/** The manager (NSMgr) of this node: the peer that answers where we register. */
export interface ManagerSource {
  /** Its SPIFFE ID as of the latest registration; undefined before the first. */
  readonly spiffeId: string | undefined;
}

/** Who calls about this connection; without a certificate an owner of nothing. The path is judged by the policies, later. */
export function actingPeer(peer: PeerIdentity | undefined, connection: Connection, ownName: string): ActingPeer {
  return { spiffeId: peer?.spiffeId ?? "", ...clientBehind(connection, ownName) };
}

/** How a connection that this peer makes now is owned, or one that it had before. */
export function ownerFor(acting: ActingPeer, manager: ManagerSource, before?: Owner): Owner {
  // At our start the manager calls before our registration has been answered: what it had stays the manager's.
  const isStill = manager.spiffeId === undefined && before?.isManager === true && before.spiffeId === acting.spiffeId;
  return { ...acting, isManager: isStill || acting.spiffeId === manager.spiffeId };
}

/** The name under which lines of the log count that a call causes. */
export function accountableName({ spiffeId, isManager, client }: Owner): string {
  return isManager && client !== undefined ? `${client || "unidentified"} behind the manager` : spiffeId;
}

/**
 * True if the peer may watch what `owner` made. A manager's pod that was made again has a new SPIFFE ID (it contains the
 * pod's name), so what one manager made belongs to the manager we are registered with now.
 */
export function maySee(spiffeId: string, owner: Owner, manager: ManagerSource): boolean {
  return spiffeId === owner.spiffeId || (owner.isManager && spiffeId === manager.spiffeId);
}

/** True if the peer may refresh, change and close what `owner` made: the manager for the client that it was made for alone. */
export function mayAct(acting: ActingPeer, owner: Owner, manager: ManagerSource): boolean {
  if (!maySee(acting.spiffeId, owner, manager)) return false;
  // Before the first registration any peer may be the manager.
  const isThroughManager = owner.isManager || [undefined, acting.spiffeId].includes(manager.spiffeId);
  return !isThroughManager || isSameClient(acting, owner);
}

function isSameClient(acting: Behind, owner: Behind): boolean {
  // The manager's own, or in the journal of a version that did not keep it.
  if (owner.client === undefined) return true;
  // From another node: the forwarder there may have been replaced, and has another SPIFFE ID then.
  if (acting.origin !== undefined && owner.origin !== undefined) return acting.origin === owner.origin;
  return acting.client === owner.client;
}

/** True if both are the same peer for the same client. */
export function isSameActing(a: ActingPeer, b: ActingPeer): boolean {
  return a.spiffeId === b.spiffeId && a.client === b.client && a.origin === b.origin;
}
