import assert from "node:assert/strict";
import { createServer, type Socket } from "node:net";
import test from "node:test";
import { systemClock } from "../async/index.ts";
import { createMetrics } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { OtlpExporter } from "./exporter.ts";

const service = { name: "forwarder", version: "1" };
const none = new Map<string, string[]>();

test("OtlpExporter holds nothing up for a collector that is not there, and counts what is lost", async () => {
  const [metrics, log] = [createMetrics(), recordingLog()];
  const options = { endpoint: "127.0.0.1:1", metricsIntervalMs: 20, service, metrics, log };
  const otlp = new OtlpExporter({ ...options, clock: systemClock });
  for (let i = 0; i < 2100; i++) await otlp.tracer.serve("call", none, {}, async () => i);
  while (log.of("collector-lost").length === 0) await systemClock.sleep(5);
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
  const options = { endpoint: `127.0.0.1:${port}`, metricsIntervalMs: 1, service, metrics: createMetrics() };
  const otlp = new OtlpExporter({ ...options, clock: systemClock, log: recordingLog() });
  while (sockets.size === 0) await systemClock.sleep(5);
  await otlp.stop();
});

test("OtlpExporter's tracer passes on the caller's own error and result", async () => {
  const options = { endpoint: "127.0.0.1:1", metricsIntervalMs: 1e6, service, metrics: createMetrics() };
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
