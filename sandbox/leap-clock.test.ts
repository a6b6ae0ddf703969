import assert from "node:assert/strict";
import { test } from "node:test";
import { LeapClock } from "./leap-clock.ts";

const HOUR_MS = 3_600_000;

test("LeapClock.leap() moves both times on, and what waits for less than that is over", async () => {
  const clock = new LeapClock();
  const [nowMs, monotonicMs] = [clock.now(), clock.monotonicMs()];
  const fired: string[] = [];
  const fires = (name: string, delayMs: number) =>
    new Promise<void>((resolve) => {
      clock.after(delayMs, () => {
        fired.push(name);
        resolve();
      });
    });
  const soon = fires("soon", HOUR_MS);
  const late = fires("late", 3 * HOUR_MS);
  const cancelled = clock.after(HOUR_MS, () => fired.push("cancelled"));
  const slept = clock.sleep(HOUR_MS);
  cancelled.cancel();
  clock.leap(2 * HOUR_MS);
  await Promise.all([soon, slept]);
  assert.deepEqual(fired, ["soon"]);
  assert.ok(clock.now() - nowMs >= 2 * HOUR_MS && clock.monotonicMs() - monotonicMs >= 2 * HOUR_MS);
  clock.leap(HOUR_MS);
  await late;
  assert.deepEqual(fired, ["soon", "late"]);
});

test("LeapClock.sleep() ends with the reason of its signal, before a leap and after one", async () => {
  const clock = new LeapClock();
  const stop = new AbortController();
  const sleeping = assert.rejects(clock.sleep(2 * HOUR_MS, stop.signal), /enough/);
  clock.leap(HOUR_MS);
  await new Promise(setImmediate);
  stop.abort(new Error("enough"));
  await sleeping;
  await assert.rejects(clock.sleep(HOUR_MS, stop.signal), /enough/);
  await clock.sleep(1);
});
