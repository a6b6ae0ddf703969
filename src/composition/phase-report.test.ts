import assert from "node:assert/strict";
import { test } from "node:test";
import { type Clock, systemClock } from "../async/index.ts";
import { Health } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { goDuration, phaseTitles, startPhases } from "./phase-report.ts";

test("startPhases() names each phase with the time since the start, and ends in the success line", () => {
  let nowMs = 0;
  const clock = { ...systemClock, monotonicMs: () => nowMs };
  const log = recordingLog();
  const health = new Health(clock);
  const notServing = health.condition("not-serving");
  const phases = startPhases({ health, notServing, clock, log });
  for (const title of phaseTitles) {
    phases.begin(title);
    assert.equal(health.ready.value, false);
    nowMs += 250;
  }
  phases.completed();
  assert.equal(health.ready.value, true);
  const reported = log.events.map(({ fields }) => fields["message"]);
  assert.equal(reported.length, phaseTitles.length + 2);
  assert.equal(reported[2], "executing phase 2: look at the node (time since start: 250ms)");
  assert.equal(reported.at(-1), "Startup completed in 1.75s");
  assert.deepEqual(Object.values(log.events.at(-1)?.fields["phasesMs"] ?? {}), Array(phaseTitles.length).fill(250));
});

test("startPhases() reports what a phase that lasts waits for, less often each time, until the start has ended", () => {
  const timers: { readonly delayMs: number; readonly callback: () => void; isCancelled: boolean }[] = [];
  const clock: Clock = {
    ...systemClock,
    after(delayMs, callback) {
      const timer = { delayMs, callback, isCancelled: false };
      timers.push(timer);
      const cancel = () => {
        timer.isCancelled = true;
      };
      return { cancel };
    },
  };
  const log = recordingLog();
  const health = new Health(clock);
  const notServing = health.condition("not-serving");
  health.condition("svid-missing", "No answer of the agent");
  const phases = startPhases({ health, notServing, clock, log });
  phases.begin("read the journal");
  phases.begin("serve NSM");
  assert.equal(timers[0]?.isCancelled, true, "the phase before is over");
  timers[1]?.callback();
  const [reported] = log.of("phase-slow");
  assert.deepEqual(
    [reported?.["phase"], reported?.["conditions"]],
    ["serve NSM", ["svid-missing: No answer of the agent", "not-serving: Starting: serve NSM"]],
  );
  assert.deepEqual(
    timers.map(({ delayMs }) => delayMs),
    [10_000, 10_000, 20_000],
  );
  phases.end();
  assert.equal(timers[2]?.isCancelled, true);
  phases.begin("register with the manager");
  phases.completed();
  assert.equal(timers[3]?.isCancelled, true);
});

for (const [ms, text] of [
  [0.85, "850µs"],
  [12.5, "12.5ms"],
  [1250, "1.25s"],
  [123_000, "2m3s"],
  [3_599_000, "59m59s"],
  [3_600_000, "1h0m0s"],
  [3_661_000, "1h1m1s"],
] as const) {
  test(`goDuration() says ${text}`, () => assert.equal(goDuration(ms), text));
}
