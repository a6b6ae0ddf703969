import assert from "node:assert/strict";
import { test } from "node:test";
import { createMetrics } from "../telemetry/index.ts";
import { metricPoints } from "./metric-points.ts";

const span = { startTimeUnixNano: 1n, timeUnixNano: 2n };

test("metricPoints() gives counters as sums, gauges as they are, histograms as one point with what is in each bucket", async () => {
  const metrics = createMetrics();
  metrics.counter({ name: "c_total", help: "C", labels: { result: ["ok"] } }).add({ result: "ok" }, 3);
  metrics.gauge({ name: "g", help: "G" }).set({}, 7);
  metrics.gauge({ name: "empty", help: "E", collect: () => {} });
  const seconds = metrics.histogram({ name: "h_seconds", help: "H", buckets: [1, 10], labels: { to: ["a", "b"] } });
  for (const value of [0.5, 0.5, 5, 50]) seconds.observe({ to: "a" }, value);
  seconds.observe({ to: "b" }, 5);
  const points = metricPoints(await metrics.read(), span);
  assert.deepEqual(
    points.map(({ name, description, data }) => [name, description, data?.case]),
    [
      ["c_total", "C", "sum"],
      ["g", "G", "gauge"],
      ["h_seconds", "H", "histogram"],
    ],
  );
  const [sum, gauge, histogram] = points.map(({ data }) => data?.value as Record<string, unknown>);
  const attribute = (key: string, value: string) => ({ key, value: { value: { case: "stringValue", value } } });
  assert.deepEqual(sum, {
    dataPoints: [{ ...span, attributes: [attribute("result", "ok")], value: { case: "asDouble", value: 3 } }],
    aggregationTemporality: 2,
    isMonotonic: true,
  });
  assert.deepEqual(gauge, { dataPoints: [{ ...span, attributes: [], value: { case: "asDouble", value: 7 } }] });
  const pointOf = (to: string, count: bigint, total: number, bucketCounts: bigint[]) => ({
    ...span,
    attributes: [attribute("to", to)],
    ...{ count, sum: total, bucketCounts, explicitBounds: [1, 10] },
  });
  assert.deepEqual(histogram, {
    dataPoints: [pointOf("a", 4n, 56, [2n, 1n, 1n]), pointOf("b", 1n, 5, [0n, 1n, 0n])],
    aggregationTemporality: 2,
  });
});
