import assert from "node:assert/strict";
import { test } from "node:test";
import { seededRandom } from "./seeded-random.ts";
import { VirtualClock } from "./virtual-clock.ts";

test("VirtualClock fires by time, then in the order of setting, and time does not pass in between", async () => {
  const clock = new VirtualClock({ nowMs: 1000 });
  const seen: string[] = [];
  const note = (what: string) => () => void seen.push(`${what} at ${clock.now()}`);
  clock.after(3_600_000, note("late"));
  clock.after(5, note("first"));
  clock.after(5, note("second"));
  clock.after(6, note("never")).cancel();
  clock.after(7, () => {
    note("outer")();
    clock.after(1, note("inner"));
  });
  assert.deepEqual([seen, clock.now()], [[], 1000]);
  await clock.sleep(3_600_001);
  assert.deepEqual(seen, ["first at 1005", "second at 1005", "outer at 1007", "inner at 1008", "late at 3601000"]);
});

test("VirtualClock.sleep() ends with its signal, and leaves no timer", async () => {
  const clock = new VirtualClock({ nowMs: 0 });
  const stop = new AbortController();
  const slept = clock.sleep(1000, stop.signal);
  stop.abort(new Error("enough"));
  await assert.rejects(slept, /enough/);
  await assert.rejects(clock.sleep(1000, stop.signal), /enough/);
  await new Promise(setImmediate);
  assert.equal(clock.now(), 0);
});

test("seededRandom() gives the same for the same seed, and UUIDs of version 4", () => {
  const draw = (seed: number) => {
    const random = seededRandom(seed);
    return [random.uuid(), random.fraction(), random.bytes(3).toString("hex")];
  };
  assert.deepEqual(draw(7), draw(7));
  assert.notDeepEqual(draw(7), draw(8));
  assert.match(String(draw(7)[0]), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});
