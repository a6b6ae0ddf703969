import assert from "node:assert/strict";
import { test } from "node:test";
import { BURN_MS, burnerShares, burnNowMs, groupCpuMs, parseStat } from "./cpu-share.ts";

/** Fields 1 to 17 of proc_pid_stat(5) and one more. */
const statOf = (pid: number, group: number, ticks: readonly [number, number, number, number], name = "node") =>
  `${pid} (${name}) S 1 ${group} 7 0 -1 4194304 100 0 0 0 ${ticks.join(" ")} 20 0`;

test("parseStat() reads the group and all CPU time, whatever the process is called", () => {
  assert.deepEqual(parseStat(statOf(5, 4, [1, 2, 30, 400])), { group: 4, cpuMs: 4_330 });
  assert.deepEqual(parseStat(statOf(5, 4, [1, 0, 0, 0], "a (b) S 9 9")), { group: 4, cpuMs: 10 });
  assert.equal(parseStat(""), undefined);
});

test("groupCpuMs() adds up a group, and leaves out others and what has ended", () => {
  const stats = [statOf(4, 4, [10, 5, 0, 0]), statOf(6, 4, [1, 0, 2, 0]), statOf(9, 9, [900, 0, 0, 0]), ""];
  assert.equal(groupCpuMs(stats, 4), 180);
  assert.equal(groupCpuMs(stats, 3), 0);
});

const rows = [
  { processors: 0, shares: [] },
  { processors: Number.NaN, shares: [] },
  { processors: 0.25, shares: [0.25] },
  { processors: 1, shares: [1] },
  { processors: 1.5, shares: [0.75, 0.75] },
];
for (const { processors, shares } of rows) {
  test(`burnerShares() divides ${processors} processors among ${shares.length} processes`, () =>
    assert.deepEqual(burnerShares(processors), shares));
}

test("burnNowMs() rests when it has had its share, and takes what it is behind a little at a time", () => {
  assert.equal(burnNowMs({ share: 0.5, elapsedMs: 100, usedMs: 50 }), 0);
  assert.equal(burnNowMs({ share: 0.5, elapsedMs: 100, usedMs: 80 }), 0);
  assert.equal(burnNowMs({ share: 0.5, elapsedMs: 100, usedMs: 48 }), 2);
  assert.equal(burnNowMs({ share: 0.5, elapsedMs: 1_000, usedMs: 0 }), BURN_MS);
});
