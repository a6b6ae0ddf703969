// The guest's program: runs what the plan says on one node, and reports each story to the host as it ends.
import { readFileSync } from "node:fs";
import type { GuestPlan } from "../topologies.ts";
import { scenarios } from "./scenarios.ts";
import { Stage, textOf } from "./stage.ts";
import { report } from "./telling.ts";

for (const kind of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(kind, (error: unknown) => {
    report({ kind: "test", scenario: "guest", name: kind, ms: Math.round(performance.now()), error: textOf(error) });
    process.exit(1);
  });
}

const plan = JSON.parse(readFileSync("/out/plan.json", "utf8")) as GuestPlan;
const stage = new Stage(plan);
for (const name of plan.scenarios) {
  const scenario = scenarios[name];
  if (!scenario) throw new Error(`There is no scenario ${name}`);
  await stage.scenario(name, scenario);
}
await stage.end();
process.exit(0);
