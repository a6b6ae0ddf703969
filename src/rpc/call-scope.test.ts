import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { DeadlineError } from "../async/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { CallScope, type ScopeOptions } from "./call-scope.ts";
import { RpcError } from "./status.ts";

test("CallScope.end() leaves no listener on the caller's signal, and no timer", () => {
  const clock = new HandClock();
  const { signal } = new AbortController();
  const scope = new CallScope(clock, { path: "/service/Method", target: "unix:///peer" }, { timeoutMs: 1000, signal });
  assert.deepEqual([getEventListeners(signal, "abort").length, clock.timerCount], [1, 1]);
  scope.end();
  assert.deepEqual([getEventListeners(signal, "abort").length, clock.timerCount], [0, 0]);
});

function scopeOf(options: Partial<ScopeOptions> = {}) {
  const clock = new HandClock();
  const call = { path: "/a.B/C", target: "unix:///a" };
  return { clock, scope: new CallScope(clock, call, { timeoutMs: undefined, signal: undefined, ...options }) };
}

for (const [reason, code, message] of [
  [new RpcError("UNAVAILABLE", "the node is going"), "UNAVAILABLE", "the node is going"],
  [new DOMException("too long", "TimeoutError"), "DEADLINE_EXCEEDED", "too long"],
  [new DeadlineError("it took too long"), "DEADLINE_EXCEEDED", "it took too long"],
  [new Error("the caller has gone"), "CANCELLED", "the caller has gone"],
  ["no error", "CANCELLED", "no error"],
] as const) {
  test(`a call that its caller aborts with ${String(reason)} ends with ${code}, before it began too`, () => {
    const caller = new AbortController();
    const { scope } = scopeOf({ signal: caller.signal });
    assert.equal(scope.signal.aborted, false);
    caller.abort(reason);
    for (const { signal } of [scope, scopeOf({ signal: caller.signal }).scope]) {
      assert.ok(signal.reason instanceof RpcError);
      assert.deepEqual([signal.reason.code, signal.reason.message], [code, message]);
    }
  });
}

test("a call has what is left of its limit, then nothing, and ends", async () => {
  const { clock, scope } = scopeOf({ timeoutMs: 1_000 });
  assert.equal(scope.leftMs(), 1_000);
  await clock.pass(400);
  assert.equal(scope.leftMs(), 600);
  await clock.pass(700);
  assert.equal(scope.leftMs(), 0);
  assert.match((scope.signal.reason as RpcError).message, /^\/a\.B\/C at unix:\/\/\/a took longer than 1000 ms$/);
  scope.cancel(new RpcError("CANCELLED", "later"));
  assert.equal((scope.signal.reason as RpcError).code, "DEADLINE_EXCEEDED", "what was first counts");
  const { clock: other, scope: unlimited } = scopeOf();
  assert.deepEqual([unlimited.leftMs(), other.timerCount], [undefined, 0]);
});
