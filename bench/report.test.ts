import assert from "node:assert/strict";
import { test } from "node:test";
import { type NodeFigures, reportOf, tableOf } from "./report.ts";
import { distributionOf } from "./statistics.ts";

const machine = { cpus: 2, cpuModel: "a cpu", kernel: "6.18", node: "v24", links: "none", loadAverage: 0.5 };

const nothingMore = { kubelet: [], recovery: undefined };

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
  const report = reportOf(machine, [nodeOf(8), nodeOf(64), nodeOf(256)], nothingMore);
  assert.deepEqual(Object.keys(report), ["machine", "start_to_registered_ms", "rss_idle_mib", "by_names", "by_vfs"]);
  assert.equal(report["rss_idle_mib"], 256, "of the largest node");
  assert.deepEqual(report["start_to_registered_ms"], { p50: 150, p99: 150, n: 1 });
});

test("reportOf() names the calls of 64 VFs, and compares few connections with a full house", () => {
  const full = { calls: callsOf(20), rssMib: 111.116 };
  const cpuIdleMsPerS = 9.876;
  const nodes = [
    nodeOf(8, { one: callsOf(10) }),
    nodeOf(64, { one: callsOf(30), refreshWrites: 0 }),
    nodeOf(256, { full, cpuIdleMsPerS }),
  ];
  const report = reportOf(machine, nodes, nothingMore);
  assert.deepEqual(report["request_first_ms"], { p50: 30, p99: 30, n: 2 });
  assert.equal(report["refresh_unchanged_kernel_writes"], 0);
  assert.equal(report["request_cost_ratio_8_to_256"], 1.5);
  assert.equal(report["rss_256_connections_mib"], 111.12);
  assert.equal(report["cpu_idle_ms_per_s"], 9.88);
  assert.ok(!("request_first_32_ms" in report));
});

test("reportOf() names what kubelet costs, of 64 VFs and by VFs and names", () => {
  const times = distributionOf([7]);
  const few = {
    vfs: 64,
    names: 2,
    restart: times,
    fault: times,
    allocate: times,
    allocateCpuMs: 1.234,
    listsPerAllocate: 1,
  };
  const report = reportOf(machine, [], { kubelet: [few, { ...few, vfs: 256, names: 6 }], recovery: times });
  assert.deepEqual(
    [report["kubelet_restart_ms"], report["fault_to_kubelet_ms"], report["recovery_ms"]],
    [times, times, times],
  );
  const one = {
    kubelet_restart_ms: times,
    fault_to_kubelet_ms: times,
    allocate_ms: times,
    allocate_cpu_ms: 1.23,
    lists_per_allocate: 1,
  };
  assert.deepEqual(report["by_names"], { "64x2": one, "256x6": one });
});

test("reportOf() and tableOf() name the driver's time beside the time until a VF is free", () => {
  const node = nodeOf(8, { untilFree: distributionOf([120]) });
  const report = reportOf(machine, [node], nothingMore);
  assert.deepEqual([report["close_to_free_ms"], report["close_to_free_driver_ms"]], [{ p50: 120, p99: 120, n: 1 }, 85]);
  const row = tableOf([node, nodeOf(64)]).rows.find(([title]) => title?.startsWith("Close until"));
  assert.deepEqual(row, ["Close until free, driver 85 ms", "120.0 / 120.0", "–"]);
});

test("tableOf() shows a dash where nothing was measured", () => {
  const { headings, rows } = tableOf([nodeOf(8, { one: callsOf(10.04) }), nodeOf(64)]);
  assert.deepEqual(headings.slice(1), ["8 VFs", "64 VFs"]);
  assert.deepEqual(rows[0], ["first Request", "10.0 / 10.0", "–"]);
});
