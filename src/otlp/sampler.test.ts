import assert from "node:assert/strict";
import { test } from "node:test";
import { samplerNamed } from "./sampler.ts";

const low = `${"f".repeat(16)}3fffffffffffffff`;
const high = `${"0".repeat(16)}c000000000000000`;
const from = (isSampled: boolean) => ({ traceId: low, spanId: "1".repeat(16), isSampled, state: "" });

/** Of a low and a high trace that begin here, and of the low one kept, and not kept, by its caller. */
const rows = [
  ["always_on", undefined, "1111"],
  ["always_off", undefined, "0000"],
  ["traceidratio", "0.5", "1011"],
  ["traceidratio", undefined, "1111"],
  ["traceidratio", "0", "0000"],
  ["parentbased_always_on", undefined, "1110"],
  ["parentbased_always_off", undefined, "0010"],
  ["parentbased_traceidratio", "0.5", "1010"],
] as const;
for (const [name, arg, kept] of rows) {
  test(`samplerNamed() knows ${name} ${arg ?? ""}`, () => {
    const sampler = samplerNamed(name, arg);
    const seen = [
      sampler(low, undefined),
      sampler(high, undefined),
      sampler(low, from(true)),
      sampler(low, from(false)),
    ];
    assert.equal(seen.map(Number).join(""), kept);
  });
}

for (const [name, arg] of [
  ["jaeger_remote"],
  ["constructor"],
  ["traceidratio", "2"],
  ["traceidratio", "x"],
  ["traceidratio", " "],
]) {
  test(`samplerNamed() refuses ${name} ${arg ?? ""}`, () =>
    assert.throws(() => samplerNamed(name ?? "", arg), SyntaxError));
}
