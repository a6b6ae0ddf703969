import assert from "node:assert/strict";
import { test } from "node:test";
import { guarded } from "../async/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { createMetrics } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { reportEscapedErrors } from "./escaped-errors.ts";

test("reportEscapedErrors() counts each error, and logs one of a source in a minute with how many were not", async () => {
  const [metrics, clock, log] = [createMetrics(), new HandClock(), recordingLog()];
  const stop = reportEscapedErrors(metrics, clock, log);
  const fail = (source: "timer" | "poll") =>
    guarded(source, () => {
      throw new Error(`of ${source}`);
    })();
  const reported = () => log.of("callback-failed").map(({ source, unloggedBefore }) => [source, unloggedBefore]);
  for (let times = 0; times < 3; times += 1) fail("timer");
  fail("poll");
  assert.deepEqual(reported(), [
    ["timer", 0],
    ["poll", 0],
  ]);
  await clock.pass(60_000);
  fail("timer");
  await clock.pass(60_000);
  fail("timer");
  assert.deepEqual(reported().slice(2), [
    ["timer", 2],
    ["timer", 0],
  ]);
  assert.match(await metrics.text(), /nsm_sriov_callback_errors_total\{source="timer"\} 5/);
  stop();
});
