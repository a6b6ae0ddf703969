import type { Metrics } from "../telemetry/index.ts";

const CODES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
] as const;

/** How the service does, for Prometheus. */
export interface ServiceMetrics {
  /** A Request or Close has ended. */
  ended(method: "Request" | "Close", code: string, tookMs: number): void;
}

/** Declares the metrics of this module; `counts` is called at each scrape. */
export function declareMetrics(
  metrics: Metrics,
  counts: () => Readonly<Record<"established" | "reclaiming" | "watchers" | "waiting", number>>,
): ServiceMetrics {
  const calls = metrics.histogram({
    name: "nsm_sriov_calls_seconds",
    help: "How long Requests and Closes took, by their gRPC code",
    labels: { method: ["Request", "Close"], code: [...CODES] },
  });
  metrics.gauge({
    name: "nsm_sriov_connections",
    help: "Established connections, and those whose teardown has failed and is tried again",
    labels: { state: ["established", "reclaiming"] },
    collect(gauge) {
      const { established, reclaiming } = counts();
      gauge.set({ state: "established" }, established);
      gauge.set({ state: "reclaiming" }, reclaiming);
    },
  });
  metrics.gauge({
    name: "nsm_sriov_monitor_subscribers",
    help: "Peers that watch their connections",
    collect: (gauge) => gauge.set({}, counts().watchers),
  });
  metrics.gauge({
    name: "nsm_sriov_connection_queue_length",
    help: "Calls that wait for their turn behind another call of the same connection",
    collect: (gauge) => gauge.set({}, counts().waiting),
  });
  return {
    ended(method, code, tookMs) {
      calls.observe({ method, code: CODES.find((known) => known === code) ?? "UNKNOWN" }, tookMs / 1000);
    },
  };
}
