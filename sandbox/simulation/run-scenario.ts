import { disagreements } from "./agreement.ts";
import type { Scenario } from "./scenarios.ts";
import { type SimulatedPod, Simulation } from "./simulation.ts";

/** What one run has been. */
export interface Run {
  /** All that has happened: the same for the same seed. */
  readonly lines: readonly string[];
}

/** No story lasts longer, in its own time: something waits for what does not come. */
const LIMIT_MS = 3_600_000;

/** Runs a scenario in the order of a seed. @throws with what went wrong, and what happened last. */
export async function runScenario({ story, errors = [], ...options }: Scenario, seed: number): Promise<Run> {
  const simulation = await Simulation.start({ ...options, seed });
  const { trace, clock } = simulation.node;
  const problems: string[] = [];
  const played = async () => {
    await simulation.startForwarder();
    await simulation.offers(simulation.vfCount);
    const open = await story(simulation);
    await simulation.until(() => disagreements(simulation, open));
    await closeAll(open);
    await simulation.until(() => disagreements(simulation, []));
  };
  const over = clock.sleep(LIMIT_MS).then(() => Promise.reject(new Error("nothing more happens")));
  try {
    await Promise.race([played(), over]);
  } catch (error) {
    problems.push(error instanceof Error && error.stack ? error.stack : String(error));
  }
  const isWrong = (logged: string) => !errors.some((event) => logged.startsWith(`${event} `));
  problems.push(...(await simulation.stop()), ...trace.errors.filter(isWrong), ...simulation.violations);
  const { lines } = trace;
  if (problems.length > 0) throw new Error(`${problems.join("\n")}\nin this order:\n${lines.slice(-60).join("\n")}`);
  return { lines };
}

async function closeAll(open: readonly SimulatedPod[]): Promise<void> {
  await Promise.all(open.map(({ client }) => client.close()));
}
