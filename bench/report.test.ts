import assert from "node:assert/strict";
import { test } from "node:test";
import { type NodeFigures, reportOf, tableOf } from "./report.ts";
import { distributionOf } from "./statistics.ts";

const machine = { cpus: 2, cpuModel: "a cpu", kernel: "6.18", node: "v24", links: "none", loadAverage: 0.5 };

/** Calls that all took the same. */
function callsOf(requestMs: number) {
  const same = (ms: number) => distributionOf([ms, ms]);
  return { request: same(requestMs), refresh: same(4), close: same(6) };
}

function nodeOf(vfs: number, more: Partial<NodeFigures> = {}): NodeFigures {
  const starts = [{ loadMs: 100, startMs: 50.004, calledAtMs: 0, toKubeletMs: 60 }];
  return { vfs, starts, rssIdleMib: vfs, ...more };
}

test("reportOf() leaves out what was not measured", () => {
  const report = reportOf(machine, [nodeOf(8), nodeOf(64), nodeOf(256)]);
  assert.deepEqual(Object.keys(report), ["machine", "start_to_registered_ms", "rss_idle_mib", "by_vfs"]);
  assert.equal(report["rss_idle_mib"], 256, "of the largest node");
  assert.deepEqual(report["start_to_registered_ms"], { p50: 150, p99: 150, n: 1 });
});

test("reportOf() names the calls of 64 functions, and compares few connections with a full house", () => {
  const full = { calls: callsOf(20), rssMib: 111.116 };
  const report = reportOf(machine, [
    nodeOf(8, { one: callsOf(10) }),
    nodeOf(64, { one: callsOf(30), refreshWrites: 0 }),
    nodeOf(256, { full }),
  ]);
  assert.deepEqual(report["request_first_ms"], { p50: 30, p99: 30, n: 2 });
  assert.equal(report["refresh_unchanged_kernel_writes"], 0);
  assert.equal(report["request_cost_ratio_8_to_256"], 1.5);
  assert.equal(report["rss_256_connections_mib"], 111.12);
  assert.ok(!("request_first_32_ms" in report));
});

test("tableOf() shows a dash where nothing was measured", () => {
  const { headings, rows } = tableOf([nodeOf(8, { one: callsOf(10.04) }), nodeOf(64)]);
  assert.deepEqual(headings.slice(1), ["8 VFs", "64 VFs"]);
  assert.deepEqual(rows[0], ["first Request", "10.0 / 10.0", "–"]);
});
