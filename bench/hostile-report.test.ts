import assert from "node:assert/strict";
import { test } from "node:test";
import { hostileKeys, hostileTables } from "./hostile-report.ts";
import { distributionOf } from "./statistics.ts";

const windowOf = (tookMs: number, more = {}) => ({
  times: { "warm Request": distributionOf([tookMs]) },
  retries: 0,
  load: 0,
  forwarder: 0.25,
  ...more,
});

const figures = {
  alone: windowOf(20),
  attacks: [
    {
      says: "knocks",
      way: "manager" as const,
      attacked: windowOf(90, { retries: 3, load: 0.755 }),
      loaded: windowOf(60, { load: 0.75 }),
    },
  ],
  leftOut: ["waits (direct)"],
};

test("hostileTables() put the same load beside the attack, and a dash where nothing was measured", () => {
  const [table] = hostileTables(figures);
  assert.equal(
    table?.says,
    "A peer knocks, through the manager. It took 0.76 processors and the forwarder 0.25; in its place burners took 0.75, and " +
      "the forwarder 0.25. Innocents tried again 3 times, and 0.",
  );
  assert.deepEqual(table?.rows.slice(0, 2), [
    ["warm Request", "20.0 / 20.0", "90.0 / 90.0", "60.0 / 60.0", "1.50 / 1.50"],
    ["warm refresh", "–", "–", "–", "–"],
  ]);
});

test("hostileKeys() has the ratios of what was measured on both sides, and what was left out", () => {
  const { attacks, left_out } = hostileKeys(figures);
  assert.deepEqual(left_out, ["waits (direct)"]);
  assert.deepEqual(
    (attacks as { times_longer: unknown }[]).map(({ times_longer }) => times_longer),
    [{ "warm Request": { p50: 1.5, p99: 1.5 } }],
  );
});
