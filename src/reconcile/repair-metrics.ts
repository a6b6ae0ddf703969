import { type Metrics, outcomes } from "../telemetry/index.ts";
import { repairs } from "./decide.ts";

/** What was repaired and what could not be, and how long the passes took. */
export function declareRepairMetrics(metrics: Metrics) {
  const labels = { kind: repairs };
  return {
    repaired: metrics.counter({
      name: "nsm_sriov_repairs_total",
      help: "Differences between inventory, journal and node that were repaired",
      labels,
    }),
    failed: metrics.counter({
      name: "nsm_sriov_repairs_failed_total",
      help: "Differences that could not be repaired; each is tried again",
      labels,
    }),
    passes: metrics.histogram({
      name: "nsm_sriov_reconcile_seconds",
      help: "How long it took to read the whole node back and to repair what differed",
      labels: { outcome: outcomes },
    }),
  };
}
