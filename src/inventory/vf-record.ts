// A VF as the inventory shows it to others: a copy, derived from its facts, its holder and its conditions.
import { driverUse } from "./choose.ts";
import type { VfRecord, VfState } from "./inventory-form.ts";
import type { Vf } from "./token-assignments.ts";
import {
  describeCondition,
  effectOf,
  type VfCondition,
  type VfConditionCode,
  type VfConditionOf,
} from "./vf-condition.ts";

export function recordOf(vf: Vf): VfRecord {
  const conditions = inForce(vf);
  const worst = conditions.find((one) => effectOf(one) !== "inform");
  return {
    ...vf.facts,
    state: stateOf(vf),
    driverUse: driverUse(vf.facts),
    conditions,
    problem: worst && describeCondition(worst),
    tokenId: vf.token?.id,
    connectionId: vf.holder?.connectionId,
    use: vf.holder?.use,
  };
}

/** The condition of that code; undefined where it is not so. */
export function conditionOf<Code extends VfConditionCode>(
  { conditions }: Pick<VfRecord, "conditions">,
  code: Code,
): VfConditionOf<Code> | undefined {
  return conditions.find((one): one is VfConditionOf<Code> => one.code === code);
}

/** What a client has is the client's: what would withhold the VF says nothing as long as a connection holds it. */
function inForce({ conditions, holder }: Vf): readonly VfCondition[] {
  return holder ? conditions.all.filter((one) => effectOf(one) !== "withhold") : conditions.all;
}

/** Whether a condition of the VF, whatever holds it, keeps it from pods. */
export function isWell({ conditions, holder }: Vf): boolean {
  return conditions.all.every((one) => {
    const effect = effectOf(one);
    return effect === "inform" || effect === "reclaim" || (effect === "withhold" && holder);
  });
}

function stateOf(vf: Vf): VfState {
  const { conditions } = vf;
  if (conditions.first("quarantine")) return "quarantined";
  if (conditions.first("reclaim")) return "reclaiming";
  return vf.holder?.phase ?? (vf.token ? "reserved" : "idle");
}
