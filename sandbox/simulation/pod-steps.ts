import type { SimulatedPod, Simulation } from "./simulation.ts";

export function vfioPod(simulation: Simulation, name: string): Promise<SimulatedPod> {
  return simulation.startPod(name, { mechanism: "VFIO" });
}

/** As NSM's client does: until it is answered. */
export async function insist<T>(simulation: Simulation, call: () => Promise<T>, everyMs = 1_000): Promise<T> {
  for (let left = 60; ; left--) {
    try {
      return await call();
    } catch (error) {
      if (left === 0) throw error;
      simulation.node.trace.say("refused", String(error));
    }
    await simulation.node.clock.sleep(everyMs);
  }
}
