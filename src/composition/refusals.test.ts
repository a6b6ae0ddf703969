import assert from "node:assert/strict";
import { test } from "node:test";
import { HandClock } from "../nsm/testing/fakes.ts";
import { createMetrics } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { declareRefusals } from "./refusals.ts";

function setUp() {
  const [clock, log, metrics] = [new HandClock(), recordingLog(), createMetrics()];
  return { clock, log, metrics, refused: declareRefusals(metrics, clock, log) };
}

test("declareRefusals() counts each refusal, and reports a peer once for each kind until it has been quiet", async () => {
  const { clock, log, metrics, refused } = setUp();
  for (let at = 0; at < 3; at += 1) refused("calls", "spiffe://test/a");
  refused("descriptors", "spiffe://test/a");
  refused("connections", "");
  refused("owner-bytes");
  const reported = log.of("peer-limited");
  assert.deepEqual(reported, [
    { peer: "spiffe://test/a", kind: "calls" },
    { peer: "spiffe://test/a", kind: "descriptors" },
    { peer: "without identity", kind: "connections" },
  ]);
  const text = await metrics.text();
  assert.match(text, /nsm_sriov_refused_total\{kind="calls"\} 3\n/);
  assert.match(text, /nsm_sriov_refused_total\{kind="owner-bytes"\} 1\n/);
  await clock.pass(599_999);
  refused("calls", "spiffe://test/a");
  await clock.pass(599_999);
  refused("calls", "spiffe://test/a");
  assert.equal(log.of("peer-limited").length, 3);
  await clock.pass(600_000);
  refused("calls", "spiffe://test/a");
  assert.equal(log.of("peer-limited").length, 4);
});

test("declareRefusals() reports so many peers and no more, until those have been quiet", async () => {
  const { clock, log, refused } = setUp();
  for (let at = 0; at < 1_000; at += 1) refused("calls", `p${at}`);
  assert.equal(log.of("peer-limited").length, 256);
  await clock.pass(600_000);
  refused("calls", "p999");
  assert.equal(log.of("peer-limited").length, 257);
});
