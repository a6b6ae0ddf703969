import type { PciAddress, VfFacts, VfUse } from "../pci/index.ts";
import type { VfCondition } from "./vf-condition.ts";

/**
 * Where a VF is in its life. `reserved`: kubelet gave its token to a pod. `preparing`, `ready` and `reclaiming`: one
 * connection holds it. `quarantined`: one of its conditions says so, whatever holds it; no client gets it.
 */
export const vfStates = ["idle", "reserved", "preparing", "ready", "reclaiming", "quarantined"] as const;

/** One of them. */
export type VfState = (typeof vfStates)[number];

/** One VF as the inventory has it: a copy, it does not change later. */
export interface VfRecord extends VfFacts {
  readonly state: VfState;
  readonly driverUse: VfUse | "none";
  /** All that are so now, in the order in which they are shown. */
  readonly conditions: readonly VfCondition[];
  /** The first of them that keeps it from clients, as a sentence; undefined where none does. */
  readonly problem: string | undefined;
  /** The token that reserves it or under which it was taken. */
  readonly tokenId: string | undefined;
  readonly connectionId: string | undefined;
  /** What its connection uses it as. */
  readonly use: VfUse | undefined;
}

/** One device id as kubelet is to see it. */
export interface DeviceView {
  readonly id: string;
  readonly healthy: boolean;
  /** Kubelet has given it to a pod. */
  readonly allocated: boolean;
  readonly numaNode: number | undefined;
  readonly address: PciAddress | undefined;
}

/** What an operation touched. */
export interface InventoryChange {
  /** Resource names of which some device is different to kubelet now; none for most of what happens to a VF. */
  readonly resources: ReadonlySet<string>;
  /** The VFs that were touched; of those that are gone the inventory has no record any more. */
  readonly vfs: ReadonlySet<PciAddress>;
}

/** What one connection requests. */
export interface TakeRequest {
  readonly connectionId: string;
  readonly tokenId: string;
  readonly use: VfUse;
  /** The pod, where it is known: connections of one pod may share an IOMMU group under VFIO. The connection otherwise. */
  readonly owner?: string;
}

/** What is so on the node already, found at a restart. */
export interface AdoptRequest extends TakeRequest {
  readonly address: PciAddress;
  readonly state: Extract<VfState, "preparing" | "ready" | "reclaiming">;
  /** Of a token that this node did not make, and that a pod has all the same: an older forwarder, or the Go original, gave it out. */
  readonly resource?: string | undefined;
}

/** The outcome of a reservation or of its end. */
export interface Reservation {
  readonly address: PciAddress | undefined;
  /** A connection that still holds the VF: of an earlier pod, when kubelet gives the token out again. To be closed. */
  readonly heldBy: string | undefined;
  /** Whether this call changed anything. */
  readonly isNew: boolean;
}
