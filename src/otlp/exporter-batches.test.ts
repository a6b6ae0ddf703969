// What a collector that takes calls gets, and what is lost when it refuses some.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { until } from "../../test/scenes/until.ts";
import { systemClock } from "../async/index.ts";
import { MetricsService } from "../gen/otlp_metrics_pb.ts";
import { TraceService } from "../gen/otlp_trace_pb.ts";
import { RpcError, serveRpc, unaryHandler } from "../rpc/index.ts";
import { createMetrics, silentLog } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { OtlpExporter } from "./exporter.ts";
import { otlpSettings } from "./settings.ts";

const none = new Map<string, string[]>();

/** An exporter, and a collector that refuses what is to be refused. */
async function collecting(t: TestContext, metricsIntervalMs: number) {
  const collector = { refuses: false, batches: [] as number[], starts: [] as bigint[], ends: [] as bigint[] };
  const refuse = () => {
    if (collector.refuses) throw new RpcError("UNAVAILABLE", "full");
  };
  const handlers = [
    unaryHandler(TraceService.method.export, async ({ resourceSpans }) => {
      collector.batches.push(resourceSpans[0]?.scopeSpans[0]?.spans.length ?? 0);
      refuse();
      return {};
    }),
    unaryHandler(MetricsService.method.export, async ({ resourceMetrics }) => {
      refuse();
      const data = resourceMetrics[0]?.scopeMetrics[0]?.metrics.find(({ name }) => name === "one")?.data;
      const point = data?.case === "gauge" ? data.value.dataPoints[0] : undefined;
      collector.starts.push(point?.startTimeUnixNano ?? 0n);
      collector.ends.push(point?.timeUnixNano ?? 0n);
      return {};
    }),
  ];
  const server = await serveRpc({ url: "tcp://127.0.0.1:0", handlers, log: silentLog, clock: systemClock });
  t.after(() => server.stop(0));
  const [metrics, log] = [createMetrics(), recordingLog()];
  metrics.gauge({ name: "one", help: "One" }).set({}, 1);
  let nowMs = 1_700_000_000_000;
  const clock = { ...systemClock, now: () => nowMs++ };
  const endpoint = server.url.replace("tcp://", "");
  const scope = { name: "forwarder", version: "1" };
  const settings = otlpSettings({}, { endpoint, metricsIntervalMs, ...scope });
  const otlp = new OtlpExporter({ settings, scope, metrics, clock, log });
  const serve = async (count: number) => {
    for (let at = 0; at < count; at += 1) await otlp.tracer.serve("call", none, {}, async () => at);
  };
  const dropped = async () => /^nsm_sriov_spans_dropped_total (\d+)$/m.exec(await metrics.text())?.[1] ?? "0";
  return { collector, otlp, log, serve, dropped };
}

test("OtlpExporter.stop() sends what waits in batches that a collector takes, and drops what is more than may wait", async (t) => {
  const { collector, otlp, serve, dropped } = await collecting(t, 1e6);
  await serve(2_049);
  await otlp.stop();
  assert.deepEqual([collector.batches, await dropped()], [[512, 512, 512, 512], "1"]);
});

test("OtlpExporter counts a batch that was refused, and keeps the others for the next turn", async (t) => {
  const { collector, otlp, serve, dropped } = await collecting(t, 1e6);
  collector.refuses = true;
  await serve(1_100);
  await otlp.stop();
  assert.deepEqual([collector.batches, await dropped()], [[512], "512"]);
});

test("OtlpExporter logs that a collector is lost and back, once each, and counts from its own start for ever", async (t) => {
  const { collector, otlp, log } = await collecting(t, 5);
  collector.refuses = true;
  await until("the collector is lost", () => log.of("collector-lost").length > 0);
  collector.refuses = false;
  await until("it has taken some metrics", () => collector.ends.length > 2);
  await otlp.stop();
  assert.deepEqual([log.of("collector-lost").length, log.of("collector-back").length], [1, 1]);
  assert.equal(new Set(collector.starts).size, 1);
  assert.equal(new Set(collector.ends).size, collector.ends.length);
});
