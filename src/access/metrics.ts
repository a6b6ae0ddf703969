import type { Counter, Histogram, Metrics } from "../telemetry/index.ts";

const steps = ["grant", "revoke"] as const;

/** What is counted of this module. */
export interface AccessMetrics {
  readonly seconds: Histogram<{ readonly step: typeof steps }>;
  readonly repairs: Counter<Record<never, never>>;
}

/** Declares them. `grants` counts those that there are now. */
export function accessMetrics(metrics: Metrics, grants: () => number): AccessMetrics {
  metrics.gauge({
    name: "nsm_sriov_device_grants",
    help: "Connections whose pods have access to device nodes by our grant",
    collect: (gauge) => gauge.set({}, grants()),
  });
  return {
    seconds: metrics.histogram({
      name: "nsm_sriov_device_access_seconds",
      help: "How long it took to give a pod access to its devices, or to revoke it with proof",
      labels: { step: steps },
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
    }),
    repairs: metrics.counter({
      name: "nsm_sriov_device_access_repairs_total",
      help: "Cgroups whose device rules another program had replaced, and to which ours were added again",
    }),
  };
}
