/** Who made a connection, and so who may refresh, close and watch it. */
export interface Owner {
  /** SPIFFE ID of the peer that made it. */
  readonly spiffeId: string;
  /** That peer was the manager we were registered with: a later manager takes its place. */
  readonly isManager: boolean;
}

/** The manager (NSMgr) of this node: the peer that answers where we register. */
export interface ManagerSource {
  /** Its SPIFFE ID as of the latest registration; undefined before the first. */
  readonly spiffeId: string | undefined;
}

/** How a connection that this peer makes now is owned. */
export function ownerFor(spiffeId: string, manager: ManagerSource): Owner {
  return { spiffeId, isManager: spiffeId === manager.spiffeId };
}

/**
 * True if the peer may act on what `owner` made. A manager's pod that was made again has a new SPIFFE ID (it contains the
 * pod's name), so what one manager made belongs to the manager we are registered with now.
 */
export function mayAct(spiffeId: string, owner: Owner, manager: ManagerSource): boolean {
  return spiffeId === owner.spiffeId || (owner.isManager && spiffeId === manager.spiffeId);
}
