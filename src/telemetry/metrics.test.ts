import assert from "node:assert/strict";
import test from "node:test";
import { systemClock } from "../async/index.ts";
import { createMetrics, ofNode } from "./metrics.ts";
import { timed } from "./timed.ts";

async function linesOf(metrics: { text(): Promise<string> }): Promise<readonly string[]> {
  return (await metrics.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
}

test("counter() counts by label and folds unknown values into one", async () => {
  const metrics = createMetrics();
  const binds = metrics.counter({ name: "nsm_binds_total", help: "Binds", labels: { result: ["ok", "failed"] } });
  binds.add({ result: "ok" });
  binds.add({ result: "ok" }, 2);
  for (const text of ["x", "y"]) binds.add({ result: text as "ok" });
  assert.deepEqual(await linesOf(metrics), ['nsm_binds_total{result="ok"} 3', 'nsm_binds_total{result="other"} 2']);
});

test("gauge() with collect shows the view of the moment", async () => {
  const metrics = createMetrics();
  let inUse = new Map([["10G", 1]]);
  metrics.gauge({
    name: "nsm_in_use",
    help: "VFs in use",
    labels: { capability: ["10G", "25G"] },
    collect: (gauge) => {
      for (const [capability, count] of inUse) gauge.set({ capability: capability as "10G" }, count);
    },
  });
  assert.deepEqual(await linesOf(metrics), ['nsm_in_use{capability="10G"} 1']);
  inUse = new Map([["25G", 2]]);
  assert.deepEqual(await linesOf(metrics), ['nsm_in_use{capability="25G"} 2']);
});

test("gauge() with collect and without labels has no value that is not set", async () => {
  const metrics = createMetrics();
  let ends: number | undefined;
  const collect = (gauge: { set(labels: object, value: number): void }) => ends && gauge.set({}, ends);
  metrics.gauge({ name: "nsm_ends_seconds", help: "End", collect });
  assert.deepEqual(await linesOf(metrics), []);
  ends = 7;
  assert.deepEqual(await linesOf(metrics), ["nsm_ends_seconds 7"]);
  ends = undefined;
  assert.deepEqual(await linesOf(metrics), []);
});

test("histogram() without labels counts into buckets", async () => {
  const metrics = createMetrics();
  metrics.histogram({ name: "nsm_bind_seconds", help: "Time", buckets: [0.1, 1] }).observe({}, 0.5);
  const lines = await linesOf(metrics);
  assert.ok(lines.includes('nsm_bind_seconds_bucket{le="1"} 1'), lines.join("\n"));
  assert.ok(lines.includes('nsm_bind_seconds_bucket{le="0.1"} 0'), lines.join("\n"));
});

test("a metric declared twice is one metric", async () => {
  const metrics = createMetrics();
  for (let i = 0; i < 2; i++) metrics.counter({ name: "nsm_total", help: "Twice" }).add({});
  assert.deepEqual(await linesOf(metrics), ["nsm_total 2"]);
});

test("a label of the node takes any value", async () => {
  const metrics = createMetrics();
  metrics.gauge({ name: "nsm_up", help: "Up", labels: { pf: ofNode } }).set({ pf: "0000:01:00.0" }, 1);
  assert.deepEqual(await linesOf(metrics), ['nsm_up{pf="0000:01:00.0"} 1']);
});

test("timed() reports how long work took and how it ended", async () => {
  const seen: string[] = [];
  let nowMs = 0;
  const clock = { ...systemClock, monotonicMs: () => nowMs };
  const report = (outcome: string, seconds: number) => seen.push(`${outcome} ${seconds}`);
  const work = async (tookMs: number) => {
    nowMs += tookMs;
    if (tookMs > 1000) throw new Error("late");
    return "done";
  };
  assert.equal(await timed(clock, report, () => work(500)), "done");
  await assert.rejects(
    timed(clock, report, () => work(2000)),
    /late/,
  );
  assert.deepEqual(seen, ["ok 0.5", "failed 2"]);
});
