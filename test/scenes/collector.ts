// A collector that takes what OTLP brings and keeps it.
import type { TestContext } from "node:test";
import { systemClock as clock } from "../../src/async/index.ts";
import { type Metric, MetricsService } from "../../src/gen/otlp_metrics_pb.ts";
import { type Span, TraceService } from "../../src/gen/otlp_trace_pb.ts";
import { serveRpc, unaryHandler } from "../../src/rpc/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";

export interface Collector {
  /** `host:port`, as NSM_OPEN_TELEMETRY_ENDPOINT has it. */
  readonly endpoint: string;
  readonly spans: Span[];
  /** By name, as they came last. */
  readonly metrics: Map<string, Metric>;
}

/** Listens until the test has ended. */
export async function startCollector(t: TestContext): Promise<Collector> {
  const spans: Span[] = [];
  const metrics = new Map<string, Metric>();
  const server = await serveRpc({
    url: "tcp://127.0.0.1:0",
    handlers: [
      unaryHandler(TraceService.method.export, async ({ resourceSpans }) => {
        for (const { scopeSpans } of resourceSpans) for (const scope of scopeSpans) spans.push(...scope.spans);
        return {};
      }),
      unaryHandler(MetricsService.method.export, async ({ resourceMetrics }) => {
        for (const { scopeMetrics } of resourceMetrics)
          for (const scope of scopeMetrics) for (const metric of scope.metrics) metrics.set(metric.name, metric);
        return {};
      }),
    ],
    log: silentLog,
    clock,
  });
  t.after(() => server.stop(0));
  return { endpoint: server.url.replace("tcp://", ""), spans, metrics };
}
