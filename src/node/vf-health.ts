// The conditions of VFs as health conditions: what is given to no client is something that an operator should see.
import { type ConditionEffect, describeCondition, effectOf, type Inventory } from "../inventory/index.ts";
import type { Condition, Health } from "../telemetry/index.ts";

interface Report {
  readonly condition: Condition;
  readonly sentence: (address: string, what: string) => string;
}

/** Undefined where the cause is reported otherwise: for its PF, or by the page and the metrics only. */
function declareReports(health: Health): Readonly<Record<ConditionEffect, Report | undefined>> {
  return {
    quarantine: {
      condition: health.condition("vf-quarantined"),
      sentence: (address, what) => `${address} is given to no client: ${what}`,
    },
    withhold: {
      condition: health.condition("vf-withheld"),
      sentence: (address, what) =>
        `${address} is withheld from pods, for the host uses it: ${what}, or set hostUse: allow for its PF`,
    },
    reclaim: undefined,
    unhealthy: undefined,
    inform: undefined,
  };
}

/** Reports the first condition of each such effect for as long as it is so. */
export function reportVfConditions(inventory: Inventory, health: Health): void {
  const reports = Object.entries(declareReports(health));
  inventory.onChange(({ vfs }) => {
    for (const address of vfs) {
      const conditions = inventory.get(address)?.conditions ?? [];
      for (const [effect, report] of reports) {
        const first = conditions.find((one) => effectOf(one) === effect);
        if (first) report?.condition.raise(report.sentence(address, describeCondition(first)), address);
        else report?.condition.clear(address);
      }
    }
  });
}
