import type { Simulation } from "./simulation.ts";

/** The forwarder dies before or after its step of that number, counted from now. */
export function diesAfter(simulation: Simulation, steps: number): void {
  let left = steps;
  simulation.diesAt = () => left-- === 0;
}

/** Or has not, by then. */
export async function hasDied({ process, node }: Simulation, limitMs: number): Promise<void> {
  for (let waitedMs = 0; waitedMs < limitMs && process?.isOver === false; waitedMs += 100) await node.clock.sleep(100);
}
