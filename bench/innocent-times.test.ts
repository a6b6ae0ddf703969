import assert from "node:assert/strict";
import { test } from "node:test";
import { ratioOf, timesOf } from "./innocent-times.ts";
import { distributionOf } from "./statistics.ts";

const call = (what: "Request" | "refresh" | "Close", startedAtMs: number, tookMs: number) => ({
  what,
  startedAtMs,
  tookMs,
});

test("timesOf() keeps innocents and calls apart, and drops what began after the end", () => {
  const times = timesOf(
    [
      {
        name: "warm",
        calls: [call("Request", 0, 5), call("Close", 5, 99), call("Request", 9, 7), call("refresh", 10, 1)],
      },
      { name: "fresh", calls: [call("Request", 3, 70)] },
    ],
    10,
  );
  assert.deepEqual(times, { "warm Request": distributionOf([5, 7]), "fresh Request": distributionOf([70]) });
});

test("ratioOf() says how many times longer, and nothing of what was not measured", () => {
  const [slow, quick] = [distributionOf([30, 90]), distributionOf([10, 60])];
  assert.deepEqual(ratioOf(slow, quick), { p50: 3, p99: 1.5 });
  assert.equal(ratioOf(slow, undefined), undefined);
  assert.equal(ratioOf(undefined, quick), undefined);
});
