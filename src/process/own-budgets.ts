import type { Clock } from "../async/index.ts";
import { type Budgets, budgetsFor } from "../budgets.ts";
import { giveBackMemory } from "./give-back-memory.ts";
import { processLimits } from "./process-limits.ts";

/** What peers may have of this process; where its memory is limited, it gives back what it has freed from now on. */
export async function ownBudgets(clock: Pick<Clock, "after">): Promise<Budgets> {
  const limits = await processLimits();
  if (limits.memoryBytes !== undefined) giveBackMemory({ clock });
  return budgetsFor(limits);
}
