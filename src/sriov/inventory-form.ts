import type { PciAddress } from "./address.ts";

/** What a virtual function serves as: a network device, or a VFIO device that a pod opens itself. */
export type VfUse = "kernel" | "vfio";

/**
 * Where a virtual function is in its life. `reserved`: kubelet gave its token to a pod. `preparing`, `ready` and
 * `reclaiming`: one connection holds it. `quarantined`: something contradicts itself; nobody gets it.
 */
export type VfState = "idle" | "reserved" | "preparing" | "ready" | "reclaiming" | "quarantined";

/** What the node says about one virtual function. */
export interface VfFacts {
  readonly address: PciAddress;
  readonly pf: PciAddress;
  /** N of the link `virtfnN`: the number under which the physical function knows it. */
  readonly index: number;
  /** Undefined without an IOMMU: it can then serve as a network device only. */
  readonly iommuGroup: number | undefined;
  /** Undefined when the platform does not say. */
  readonly numaNode: number | undefined;
  /** The driver for KERNEL, from the configuration. */
  readonly kernelDriver: string;
  /** Resource names it is offered under. */
  readonly resources: readonly string[];
  /** The driver it is bound to now. */
  readonly driver: string | undefined;
  /** Why VFIO cannot be had although there is a group, for example that an unmanaged device shares it. */
  readonly vfioProblem?: string | undefined;
}

/** One virtual function as the inventory sees it: a copy, it does not change later. */
export interface VfRecord extends VfFacts {
  readonly state: VfState;
  readonly driverUse: VfUse | "none";
  /** The node has it no more; it stays in the book as long as something refers to it. */
  readonly isGone: boolean;
  /** What the host uses it for, so that it is given to no connection; undefined while a connection holds it. */
  readonly withheld: string | undefined;
  /** Why it is quarantined or withheld, or what is wrong with it or its physical function; undefined when it is healthy. */
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
  /** Resource names of which some device looks different to kubelet now; none for most of what happens to a function. */
  readonly resources: ReadonlySet<string>;
}

/** Why the inventory refused. Token ids are secrets and appear in none of these. */
export type InventoryFault =
  | {
      readonly kind: "unknown-token";
      /** Why physical functions of this node cannot be used: the token may be of one of them. */
      readonly unusablePfs?: readonly string[];
    }
  | { readonly kind: "unknown-function"; readonly address: string }
  | { readonly kind: "unknown-connection"; readonly connectionId: string }
  /** The token's function is held by that other connection: a token is good for one. */
  | { readonly kind: "token-in-use"; readonly connectionId: string }
  | { readonly kind: "function-in-use"; readonly address: string; readonly connectionId: string }
  /** The connection holds this function under another token or for another use: give that back first. */
  | { readonly kind: "connection-holds-function"; readonly address: string; readonly use: VfUse }
  | {
      readonly kind: "no-free-function";
      readonly resource: string;
      readonly use: VfUse | undefined;
      /** How many functions offer the resource, and how many of them are kept back by what. */
      readonly total: number;
      readonly because: Readonly<Record<string, number>>;
    }
  | {
      readonly kind: "wrong-state";
      readonly connectionId: string;
      readonly from: VfState;
      readonly to: VfState;
    };

/** The inventory could not give, change or take back a virtual function. Nothing was changed. */
export class InventoryError extends Error {
  override readonly name = "InventoryError";
  readonly fault: InventoryFault;

  constructor(fault: InventoryFault) {
    super(describe(fault));
    this.fault = fault;
  }
}

function describe(fault: InventoryFault): string {
  switch (fault.kind) {
    case "unknown-token":
      return ["Cannot use the token: no resource of this node gave it out", ...(fault.unusablePfs ?? [])].join("; ");
    case "unknown-function":
      return `Cannot find virtual function ${fault.address}: no configured physical function has it`;
    case "unknown-connection":
      return `Cannot find a virtual function of connection ${fault.connectionId}: it holds none`;
    case "token-in-use":
      return `Cannot use the token: connection ${fault.connectionId} holds its virtual function`;
    case "function-in-use":
      return `Cannot take virtual function ${fault.address}: connection ${fault.connectionId} holds it`;
    case "connection-holds-function":
      return `Cannot take another virtual function: the connection holds ${fault.address} as ${fault.use}; close it first`;
    case "no-free-function":
      return describeScarcity(fault);
    case "wrong-state":
      return `Cannot set the virtual function of connection ${fault.connectionId} to ${fault.to}: it is ${fault.from}`;
  }
}

/** Reasons that name a function of a group are many where groups are. */
const MOST_REASONS = 6;

function describeScarcity(fault: InventoryFault & { kind: "no-free-function" }): string {
  const reasons = Object.entries(fault.because).map(([why, count]) => `${count} ${why}`);
  const more = reasons.length > MOST_REASONS ? ", …" : "";
  const told = reasons.slice(0, MOST_REASONS).join(", ");
  const detail = reasons.length > 0 ? `: of ${fault.total}, ${told}${more}` : ": none offers it";
  return `Cannot find a virtual function for ${fault.resource}${fault.use ? ` as ${fault.use}` : ""}${detail}`;
}
