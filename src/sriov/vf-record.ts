// A virtual function as the inventory shows it to others: a copy.
import { driverUse } from "./choose.ts";
import type { VfRecord, VfState } from "./inventory-form.ts";
import type { Vf } from "./token-book.ts";

export function recordOf(vf: Vf): VfRecord {
  return {
    ...vf.facts,
    state: stateOf(vf),
    driverUse: driverUse(vf.facts),
    isGone: !vf.present,
    withheld: withheldBy(vf),
    problem: vf.present ? (vf.quarantine ?? vf.problem ?? withheldBy(vf)) : "it is gone from the node",
    tokenId: vf.token?.id,
    connectionId: vf.holder?.connectionId,
    use: vf.holder?.use,
  };
}

/** Why it is withheld, as long as no connection holds it: what a client has is the client's. */
export function withheldBy(vf: Vf): string | undefined {
  return vf.holder ? undefined : vf.withheld;
}

function stateOf(vf: Vf): VfState {
  if (vf.quarantine !== undefined || !vf.present) return "quarantined";
  return vf.holder?.phase ?? (vf.token ? "reserved" : "idle");
}
