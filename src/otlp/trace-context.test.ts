import assert from "node:assert/strict";
import test from "node:test";
import { systemRandom } from "../async/index.ts";
import { childOf, readTraceContext, traceHeaders } from "./trace-context.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c";
const spanId = "b7ad6b7169203331";
const read = (traceparent: string | string[], tracestate?: string) =>
  readTraceContext(
    new Map([
      ["traceparent", [traceparent].flat()],
      ...(tracestate === undefined ? [] : [["tracestate", [tracestate]] as const]),
    ] as [string, string[]][]),
  );

test("readTraceContext() reads what W3C's examples say", () => {
  const context = { traceId, spanId, isSampled: true, state: "" };
  assert.deepEqual(read(`00-${traceId}-${spanId}-01`), context);
  assert.deepEqual(read(`00-${traceId}-${spanId}-02`), { ...context, isSampled: false });
  assert.deepEqual(read(`cc-${traceId}-${spanId}-01-what-the-future-holds`), context);
  assert.deepEqual(read(`00-${traceId}-${spanId}-01`, "congo=t61rcWkgMzE"), { ...context, state: "congo=t61rcWkgMzE" });
});

for (const [why, wrong] of [
  ["version ff", `ff-${traceId}-${spanId}-01`],
  ["more than version 00 has", `00-${traceId}-${spanId}-01-more`],
  ["a trace of zeros", `00-${"0".repeat(32)}-${spanId}-01`],
  ["a span of zeros", `00-${traceId}-${"0".repeat(16)}-01`],
  ["capitals", `00-${traceId.toUpperCase()}-${spanId}-01`],
  ["nothing", ""],
] as const) {
  test(`readTraceContext() takes no ${why}`, () => assert.equal(read(wrong), undefined));
}

test("readTraceContext() takes no header that came twice, and no state that is too long", () => {
  const good = `00-${traceId}-${spanId}-01`;
  assert.equal(read([good, good]), undefined);
  assert.equal(read(good, `a=${"x".repeat(600)}`)?.state, "");
});

test("childOf() stays in the trace with a span of its own, and begins a trace without a parent", () => {
  const parent = { traceId, spanId, isSampled: false, state: "a=b" };
  const child = childOf(parent, systemRandom);
  assert.deepEqual({ ...child, spanId }, parent);
  assert.notEqual(child.spanId, spanId);
  assert.deepEqual(read(traceHeaders(child)["traceparent"] ?? "", "a=b"), child);
  assert.match(
    traceHeaders(childOf(undefined, systemRandom))["traceparent"] ?? "",
    /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/,
  );
});

test("readTraceContext() goes by the one bit of the flags that is assigned, and hands on a state of 512 signs", () => {
  const at = (flags: string) => read(`00-${traceId}-${spanId}-${flags}`)?.isSampled;
  assert.deepEqual(
    [at("00"), at("01"), at("02"), at("03"), at("ff"), at("fe")],
    [false, true, false, true, true, false],
  );
  const good = `00-${traceId}-${spanId}-01`;
  const state = (text: string) => read(good, text)?.state;
  assert.equal(state("x".repeat(512))?.length, 512);
  assert.equal(state("x".repeat(513)), "");
  assert.equal(state("a=\u0007"), "", "it would be a header that cannot be sent");
});

test("childOf() draws again where only zeros were drawn: such an id is none", () => {
  const draws = [0, 1];
  const random = { ...systemRandom, bytes: (count: number) => Buffer.alloc(count, draws.shift() ?? 2) };
  const parent = { traceId, spanId, isSampled: true, state: "" };
  assert.equal(childOf(parent, random).spanId, "01".repeat(8));
});
