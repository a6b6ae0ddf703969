import assert from "node:assert/strict";
import { createServer, type Socket } from "node:net";
import test from "node:test";
import { until } from "../../test/scenes/until.ts";
import { systemClock } from "../async/index.ts";
import { createMetrics } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { OtlpExporter } from "./exporter.ts";
import { otlpSettings } from "./settings.ts";

const scope = { name: "forwarder", version: "1" };
const to = (endpoint: string, metricsIntervalMs: number) => ({
  settings: otlpSettings({}, { endpoint, metricsIntervalMs, ...scope }),
  scope,
});
const none = new Map<string, string[]>();

test("OtlpExporter holds nothing up for a collector that is not there, and counts what is lost", async () => {
  const [metrics, log] = [createMetrics(), recordingLog()];
  const options = { ...to("127.0.0.1:1", 20), metrics, log };
  const otlp = new OtlpExporter({ ...options, clock: systemClock });
  for (let i = 0; i < 2100; i++) await otlp.tracer.serve("call", none, {}, async () => i);
  await until("the lost collector is logged", () => log.of("collector-lost").length > 0);
  await otlp.stop(); // tries once more
  assert.equal(log.of("collector-lost").length, 1);
  assert.match(await metrics.text(), /^nsm_sriov_spans_dropped_total (5[6-9]\d|[6-9]\d\d|\d{4})$/m);
});

test("OtlpExporter stops though the collector takes calls and never answers", async (t) => {
  const sockets = new Set<Socket>();
  const silent = createServer((socket) => sockets.add(socket)).listen(0, "127.0.0.1");
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  await new Promise((resolve) => silent.once("listening", resolve));
  const { port } = silent.address() as { port: number };
  const options = { ...to(`127.0.0.1:${port}`, 1), metrics: createMetrics() };
  const otlp = new OtlpExporter({ ...options, clock: systemClock, log: recordingLog() });
  await until("the exporter dials the collector", () => sockets.size > 0);
  await otlp.stop();
});

test("OtlpExporter's tracer passes on the caller's own error and result", async () => {
  const options = { ...to("127.0.0.1:1", 1e6), metrics: createMetrics() };
  const otlp = new OtlpExporter({ ...options, clock: systemClock, log: recordingLog() });
  const { tracer } = otlp;
  const fault = new Error("mine");
  await assert.rejects(
    tracer.serve("call", none, {}, () => tracer.step("step", () => Promise.reject(fault))),
    fault,
  );
  assert.equal(await tracer.step("outside", async () => 7), 7);
  assert.deepEqual(tracer.headers(), {});
  await otlp.stop();
});
