// Thirteen stories, each in the orders of some seeds. With `SEED=7` in the environment they are run in that one, with `SEEDS=1000` in a
// thousand.
import assert from "node:assert/strict";
import { test } from "node:test";
import { chosenSeeds } from "./chosen-seeds.ts";
import { type Run, runScenario } from "./run-scenario.ts";
import { type Scenario, scenarios } from "./scenarios.ts";

async function run(scenario: Scenario, seed: number): Promise<Run> {
  return await runScenario(scenario, seed).catch((cause: unknown) => {
    throw new Error(`SEED=${seed} tells it again: ${String(cause)}`);
  });
}

for (const [says, scenario] of Object.entries(scenarios)) {
  const seeds = chosenSeeds(process.env, scenario.seedsTimes);
  test(`${says}: all agree at the end, in the orders of seeds ${seeds.at(0)} to ${seeds.at(-1)}`, async () => {
    for (const seed of seeds) await run(scenario, seed);
  });
}

test("the same seed is the same order, to the last step and its time; another seed is another one", async () => {
  const scenario = scenarios["VFIO: Request, use and Close"];
  assert.ok(scenario);
  const [first, again, other] = [await run(scenario, 1), await run(scenario, 1), await run(scenario, 2)];
  assert.deepEqual(again.lines, first.lines);
  const orderOf = ({ lines }: Run) => lines.map((line) => line.replace(/^\S+ /, "").replaceAll(/[0-9a-f-]{36}/g, "…"));
  assert.notDeepEqual(orderOf(other), orderOf(first));
});
