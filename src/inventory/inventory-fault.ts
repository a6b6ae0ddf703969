import type { VfUse } from "../pci/index.ts";
import type { VfState } from "./inventory-form.ts";

/**
 * Why the inventory refused. Token ids are secrets and appear in none of these. Who holds what was refused is in the fault, and not in
 * its text: peers are sent that.
 */
export type InventoryFault =
  | {
      readonly kind: "unknown-token";
      /** Why PFs of this node cannot be used: the token may be of one of them. */
      readonly unusablePfs?: readonly string[];
    }
  | { readonly kind: "unknown-vf"; readonly address: string }
  | { readonly kind: "unknown-connection"; readonly connectionId: string }
  /** The token's VF is held by that other connection: a token is good for one. */
  | { readonly kind: "token-in-use"; readonly connectionId: string }
  | { readonly kind: "vf-in-use"; readonly address: string; readonly connectionId: string }
  /** The connection holds this VF under another token or for another use: give that back first. */
  | { readonly kind: "connection-holds-vf"; readonly address: string; readonly use: VfUse }
  /** The token's pod has several of before, and which of them is the connection's nothing says. */
  | { readonly kind: "several-found"; readonly addresses: readonly string[] }
  | {
      readonly kind: "no-free-vf";
      readonly resource: string;
      readonly use: VfUse | undefined;
      /** How many VFs offer the resource, and for how many of them which reason holds. */
      readonly total: number;
      readonly because: Readonly<Record<string, number>>;
    }
  | {
      readonly kind: "wrong-state";
      readonly connectionId: string;
      readonly from: VfState;
      readonly to: VfState;
    };

/** The inventory could not give, change or release a VF. Nothing was changed. */
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
    case "unknown-vf":
      return `Cannot find virtual function ${fault.address}: no configured physical function has it`;
    case "unknown-connection":
      return `Cannot find a virtual function of connection ${fault.connectionId}: it holds none`;
    case "token-in-use":
      return "Cannot use the token: another connection holds its virtual function";
    case "vf-in-use":
      return `Cannot take virtual function ${fault.address}: another connection holds it`;
    case "connection-holds-vf":
      return `Cannot take another virtual function: the connection holds ${fault.address} as ${fault.use}; close it first`;
    case "several-found":
      return (
        `Cannot say which virtual function is the connection's: the Go original gave the pod ${fault.addresses.join(" and ")}, ` +
        "and the Request names none of them (pciAddress); start the pod again"
      );
    case "no-free-vf":
      return describeScarcity(fault);
    case "wrong-state":
      return `Cannot set the virtual function of connection ${fault.connectionId} to ${fault.to}: it is ${fault.from}`;
  }
}

/** Reasons that name a VF of a group are many where groups are. */
const MOST_REASONS = 6;

function describeScarcity(fault: InventoryFault & { kind: "no-free-vf" }): string {
  const reasons = Object.entries(fault.because).map(([why, count]) => `${count} ${why}`);
  const more = reasons.length > MOST_REASONS ? ", …" : "";
  const shown = reasons.slice(0, MOST_REASONS).join(", ");
  const detail = reasons.length > 0 ? `: of ${fault.total}, ${shown}${more}` : ": none offers it";
  return `Cannot find a virtual function for ${fault.resource}${fault.use ? ` as ${fault.use}` : ""}${detail}`;
}
