// The node's functions as metrics: views of the inventory, made at each scrape.
import type { Inventory, VfState } from "./sriov/index.ts";
import type { Metrics } from "./telemetry/index.ts";

const states = [
  "idle",
  "reserved",
  "preparing",
  "ready",
  "reclaiming",
  "quarantined",
] as const satisfies readonly VfState[];

/** Declares how many virtual functions there are, by state, and how many have a problem. */
export function declareNodeMetrics(metrics: Metrics, inventory: Inventory): void {
  metrics.gauge({
    name: "nsm_sriov_virtual_functions",
    help: "Virtual functions by their state",
    labels: { state: states },
    collect(gauge) {
      const vfs = inventory.snapshot();
      for (const state of states) gauge.set({ state }, vfs.filter((vf) => vf.state === state).length);
    },
  });
  metrics.gauge({
    name: "nsm_sriov_virtual_functions_unhealthy",
    help: "Virtual functions with a problem; the status page says which",
    collect: (gauge) => gauge.set({}, inventory.snapshot().filter(({ problem }) => problem !== undefined).length),
  });
}
