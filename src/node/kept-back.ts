// Quarantined functions as a health condition: what is given to nobody is something that a person should look at.
import type { Inventory } from "../sriov/index.ts";
import type { Health } from "../telemetry/index.ts";

/** Tells of each quarantined function for as long as it is one. */
export function tellKeptBack(inventory: Inventory, health: Health): void {
  const condition = health.declare({ code: "vf-quarantined", severity: "warning" });
  let told = new Set<string>();
  inventory.onChange(() => {
    const kept = inventory.snapshot().filter(({ state }) => state === "quarantined");
    for (const { address, problem = "nobody has said why" } of kept) {
      condition.raise(`${address} is given to nobody: ${problem}`, address);
    }
    const now = new Set<string>(kept.map(({ address }) => address));
    for (const address of told) if (!now.has(address)) condition.clear(address);
    told = now;
  });
}
