import assert from "node:assert/strict";
import { test } from "node:test";
import { distributionOf, percentile, slopeOf } from "./statistics.ts";

test("percentile() takes a sample that was measured, by nearest rank", () => {
  const hundred = Array.from({ length: 100 }, (_, index) => 100 - index);
  assert.equal(percentile(hundred, 0.5), 50);
  assert.equal(percentile(hundred, 0.99), 99);
  assert.equal(percentile(hundred, 1), 100);
  assert.equal(percentile([7], 0.99), 7);
  assert.equal(percentile([1, 1000], 0.5), 1);
  assert.equal(percentile([10, 9, 100], 0.99), 100, "by size, not as text");
});

test("percentile() refuses to make up a figure of no samples", () => {
  assert.throws(() => percentile([], 0.5), RangeError);
});

test("distributionOf() leaves the samples in their order", () => {
  const samples = [3, 1, 2];
  assert.deepEqual(distributionOf(samples), { p50: 2, p99: 3, n: 3 });
  assert.deepEqual(samples, [3, 1, 2]);
});

test("slopeOf() finds the growth, also through noise that cancels out", () => {
  assert.equal(
    slopeOf([
      { x: 0, y: 5 },
      { x: 10, y: 25 },
      { x: 20, y: 45 },
    ]),
    2,
  );
  const flat = [1, -1, -1, 1].map((noise, x) => ({ x, y: 100 + noise }));
  assert.equal(slopeOf(flat), 0);
  assert.throws(() => slopeOf([{ x: 1, y: 1 }]), RangeError);
});
