import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../async/index.ts";
import { Span_SpanKind, Status_StatusCode } from "../gen/otlp_trace_pb.ts";
import { type FinishedSpan, spanTracer } from "./span-tracer.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c";
const spanId = "b7ad6b7169203331";
const headers = (flags: string) =>
  new Map([
    ["traceparent", [`00-${traceId}-${spanId}-${flags}`]],
    ["tracestate", ["a=b"]],
  ]);

function tracing() {
  let monotonicMs = 0;
  const clock = { ...systemClock, now: () => 1_700_000_000_000.25, monotonicMs: () => monotonicMs };
  const ended: FinishedSpan[] = [];
  const tracer = spanTracer(clock, (span) => ended.push(span));
  const work = async (tookMs: number, error?: unknown) => {
    monotonicMs += tookMs;
    if (tookMs > 100) throw error;
  };
  return { tracer, ended, work };
}

test("spanTracer() ends each span once, a step as the child of its call, with its time and the caller's trace", async () => {
  const { tracer, ended, work } = tracing();
  await tracer.serve("call", headers("01"), { peer: "m" }, async () => {
    await work(1.5);
    await tracer.step("step", () => work(2));
  });
  const [step, call] = ended;
  assert.deepEqual([step?.name, call?.name, ended.length], ["step", "call", 2]);
  assert.deepEqual([step?.kind, call?.kind], [Span_SpanKind.INTERNAL, Span_SpanKind.SERVER]);
  for (const span of ended) {
    assert.equal(Buffer.from(span.traceId ?? []).toString("hex"), traceId);
    assert.deepEqual([span.traceState, span.flags, span.status], ["a=b", 1, undefined]);
  }
  assert.equal(Buffer.from(call?.parentSpanId ?? []).toString("hex"), spanId);
  assert.deepEqual(step?.parentSpanId, call?.spanId);
  assert.equal(call?.startTimeUnixNano, 1_700_000_000_000_250_000n);
  assert.deepEqual(
    ended.map(({ startTimeUnixNano = 0n, endTimeUnixNano = 0n }) => endTimeUnixNano - startTimeUnixNano),
    [2_000_000n, 3_500_000n],
  );
});

test("spanTracer() ends the span of what failed with the error in short, whatever was thrown", async () => {
  for (const [thrown, message] of [
    [new Error("x".repeat(600)), "x".repeat(500)],
    ["no error", ""],
    [undefined, "failed"],
  ] as const) {
    const { tracer, ended, work } = tracing();
    await assert.rejects(
      tracer.serve("call", new Map(), {}, () => work(200, thrown)),
      (error) => error === thrown,
    );
    assert.deepEqual(ended[0]?.status, { code: Status_StatusCode.ERROR, message });
    assert.equal(ended[0]?.parentSpanId, undefined);
  }
});

test("spanTracer() hands on a trace that is not to be kept, and reports nothing of it", async () => {
  const { tracer, ended } = tracing();
  const handedOn = await tracer.serve("call", headers("00"), {}, () =>
    tracer.step("step", async () => tracer.headers()),
  );
  assert.match(handedOn["traceparent"] ?? "", new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`));
  assert.deepEqual(ended, []);
});

test("spanTracer() begins no trace for a step that belongs to no call", async () => {
  const { tracer, ended } = tracing();
  assert.equal(await tracer.step("step", async () => 7), 7);
  assert.deepEqual(ended, []);
});

test("spanTracer() ends no span before it began, whatever its clock says", async () => {
  const ended: FinishedSpan[] = [];
  const times = [10, 3];
  const clock = { ...systemClock, now: () => 1_700_000_000_000, monotonicMs: () => times.shift() ?? 0 };
  await spanTracer(clock, (span) => ended.push(span)).serve("call", new Map(), {}, async () => {});
  assert.equal(ended[0]?.endTimeUnixNano, ended[0]?.startTimeUnixNano);
});
