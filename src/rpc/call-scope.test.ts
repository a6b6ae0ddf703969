import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { HandClock } from "../nsm/testing/fakes.ts";
import { CallScope } from "./call-scope.ts";

test("CallScope.end() leaves no listener on the caller's signal, and no timer", () => {
  const clock = new HandClock();
  const { signal } = new AbortController();
  const scope = new CallScope(clock, { path: "/service/Method", target: "unix:///peer" }, { timeoutMs: 1000, signal });
  assert.deepEqual([getEventListeners(signal, "abort").length, clock.timerCount], [1, 1]);
  scope.end();
  assert.deepEqual([getEventListeners(signal, "abort").length, clock.timerCount], [0, 0]);
});
