import assert from "node:assert/strict";
import { test } from "node:test";
import { SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { type Span, Span_SpanKind, Status_StatusCode } from "../../src/gen/otlp_trace_pb.ts";
import { OtlpExporter, otlpSettings } from "../../src/otlp/index.ts";
import { createMetrics, silentLog } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";
import { startCollector } from "../scenes/collector.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c";
const callerSpan = "b7ad6b7169203331";

test("a Request is one trace from its caller through each step to the endpoint", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const collector = await startCollector(t);
  const metrics = createMetrics();
  const scope = { name: "forwarder-1", version: "1.2.3" };
  const settings = otlpSettings({}, { endpoint: collector.endpoint, metricsIntervalMs: 50, ...scope });
  const otlp = new OtlpExporter({ settings, scope, metrics, clock, log: recordingLog() });
  const machine = { realLinks: true };
  const sandbox = await Sandbox.start({ machine, metrics, tracer: otlp.tracer, log: silentLog, clock });
  t.after(() => sandbox.stop());
  await sandbox.startForwarder();
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length > 0);
  const { client } = await sandbox.startPod("client-1");

  await client.request({ traceparent: `00-${traceId}-${callerSpan}-01` });
  sandbox.endpoint.knobs.failTimes = 9;
  await assert.rejects(client.request({ traceparent: `00-${traceId}-${callerSpan}-01` }));
  sandbox.endpoint.knobs.failTimes = 0;
  await client.close();
  await otlp.stop();

  const [first, refresh, close] = collector.spans.filter(({ kind }) => kind === Span_SpanKind.SERVER);
  assert.ok(first && refresh && close);
  assert.equal(first.name, "networkservice.NetworkService/Request");
  assert.deepEqual([hex(first.traceId), hex(first.parentSpanId)], [traceId, callerSpan]);
  const steps = childrenOf(first, collector.spans);
  const names = steps.map(({ name }) => name).sort();
  assert.deepEqual(names, ["apply", "endpoint-request", "find-endpoints", "journal", "journal", "prepare"]);
  for (const step of steps)
    assert.ok(step.startTimeUnixNano >= first.startTimeUnixNano && hex(step.traceId) === traceId);
  const requested = steps.find(({ name }) => name === "endpoint-request");
  assert.equal(sandbox.endpoint.traceparents[0], `00-${traceId}-${hex(requested?.spanId)}-01`);

  assert.equal(refresh.status?.code, Status_StatusCode.ERROR);
  const failed = childrenOf(refresh, collector.spans).filter(({ status }) => status?.code === Status_StatusCode.ERROR);
  assert.ok(failed.some(({ name }) => name === "endpoint-request"));
  assert.equal(close.name, "networkservice.NetworkService/Close");
  assert.notEqual(hex(close.traceId), traceId);

  const calls = collector.metrics.get("nsm_sriov_calls_seconds")?.data;
  assert.ok(calls?.case === "histogram");
  const answered = calls.value.dataPoints.find(({ attributes }) =>
    attributes.some(({ key, value }) => key === "code" && value?.value.value === "OK"),
  );
  const counted = answered?.bucketCounts.reduce((sum, count) => sum + count, 0n);
  assert.deepEqual(
    [counted, answered?.bucketCounts.length],
    [answered?.count, (answered?.explicitBounds.length ?? 0) + 1],
  );
});

function childrenOf(parent: Span, spans: readonly Span[]): readonly Span[] {
  return spans.filter(({ parentSpanId }) => hex(parentSpanId) === hex(parent.spanId));
}

function hex(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? []).toString("hex");
}
