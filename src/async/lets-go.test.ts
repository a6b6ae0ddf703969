// What waits lets go when it is over: no listener stays on a signal, no timer on the clock, nothing runs twice.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { within } from "../../test/scenes/until.ts";
import { type Clock, systemClock } from "./clock.ts";
import { startDeadline } from "./deadline.ts";
import { KeyedQueue } from "./keyed-queue.ts";
import { Latest } from "./latest.ts";
import { both } from "./run-both.ts";
import { VirtualClock } from "./testing/virtual-clock.ts";
import { UndoStack } from "./undo.ts";

const left = (signal: AbortSignal) => getEventListeners(signal, "abort").length;
const turn = () => new Promise((resolve) => setImmediate(resolve));

test("KeyedQueue.run() leaves nothing on a signal, whatever became of its job", async () => {
  const queue = new KeyedQueue<string>();
  const caller = new AbortController();
  const { signal } = caller;
  await queue.run("a", async () => {}, signal);
  await assert.rejects(
    queue.run("a", () => Promise.reject(new Error("broken")), signal),
    /broken/,
  );
  await turn();
  assert.deepEqual([left(signal), queue.busyKeys, queue.waiting], [0, 0, 0]);
  const gate = Promise.withResolvers<void>();
  const running = queue.run("a", () => gate.promise);
  const dropped = queue.run("a", async () => assert.fail("its caller has gone"), AbortSignal.abort(new Error("gone")));
  await assert.rejects(
    within("a job is dropped before its turn", dropped),
    /gone/,
    "at once, though its turn has not come",
  );
  gate.resolve();
  await running;
});

test("KeyedQueue.run() has a job wait for all before it, though the first has ended long since", async () => {
  const queue = new KeyedQueue<string>();
  const [one, two] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const seen: string[] = [];
  const first = queue.run("a", () => one.promise);
  const second = queue.run("a", () => two.promise);
  one.resolve();
  await first;
  await turn();
  const third = queue.run("a", async () => void seen.push("third"));
  await turn();
  assert.deepEqual([seen, queue.busyKeys], [[], 1]);
  two.resolve();
  await Promise.all([second, third]);
  assert.deepEqual(seen, ["third"]);
});

test("KeyedQueue.run() lets go of what a job holds when its caller goes, though its turn has not come", async () => {
  setFlagsFromString("--expose-gc");
  const collectGarbage: () => void = runInNewContext("gc");
  const queue = new KeyedQueue<string>();
  const gate = Promise.withResolvers<void>();
  const head = queue.run("a", () => gate.promise);
  const messages: WeakRef<Uint8Array>[] = [];
  const wait = (signal: AbortSignal) => {
    const message = new Uint8Array(1_000);
    messages.push(new WeakRef(message));
    return queue.run("a", async () => message.length, signal);
  };
  const callers = [new AbortController(), new AbortController()] as const;
  const [dropped, kept] = [wait(callers[0].signal), wait(callers[1].signal)];
  callers[0].abort(new Error("gone"));
  await assert.rejects(dropped, /gone/);
  await turn(); // a WeakRef holds on to its target until the turn in which it was made is over
  collectGarbage();
  const isHeld = messages.map((message) => message.deref() !== undefined);
  gate.resolve();
  assert.deepEqual([isHeld, await kept], [[false, true], 1_000]);
  await head;
});

test("UndoStack.current names what is being undone, and nothing when it is over", async () => {
  const undo = new UndoStack();
  const seen: (string | undefined)[] = [];
  for (const what of ["one", "two"]) undo.push(what, () => void seen.push(undo.current));
  await undo.unwind(() => {});
  assert.deepEqual([seen, undo.current], [["two", "one"], undefined]);
});

/** Counts who listens. */
class Counted extends Latest<number> {
  listeners = 0;

  override onChange(listener: (value: number) => void): () => void {
    this.listeners += 1;
    const stop = super.onChange(listener);
    return () => {
      this.listeners -= 1;
      return stop();
    };
  }
}

test("Latest.next() leaves neither a listener of the value nor of the signal, whichever comes first", async () => {
  const latest = new Counted();
  const caller = new AbortController();
  const value = latest.next(caller.signal);
  latest.set(1);
  assert.deepEqual([await value, left(caller.signal), latest.listeners], [1, 0, 0]);
  const never = latest.next(caller.signal);
  caller.abort(new Error("stop"));
  await assert.rejects(never, /stop/);
  assert.equal(latest.listeners, 0);
});

test("Latest.set() notifies the listeners that it has, and none that is added meanwhile", () => {
  const latest = new Latest<number>();
  const seen: string[] = [];
  latest.onChange((value) => {
    seen.push(`first ${value}`);
    if (value < 3) latest.onChange(() => void seen.push("late"));
  });
  latest.set(1);
  assert.deepEqual(seen, ["first 1"]);
});

test("startDeadline() that has ended leaves neither its timer nor a listener on its parent", () => {
  const clock = new VirtualClock();
  const timers = new Set<object>();
  const counted: Clock = {
    now: () => clock.now(),
    monotonicMs: () => clock.monotonicMs(),
    sleep: (delayMs, signal) => clock.sleep(delayMs, signal),
    after(delayMs, callback) {
      const timer = clock.after(delayMs, callback);
      timers.add(timer);
      return {
        cancel() {
          timers.delete(timer);
          timer.cancel();
        },
      };
    },
  };
  const parent = new AbortController();
  const deadline = startDeadline(counted, 1_000, { what: "a bind", parent: parent.signal });
  assert.deepEqual([deadline.leftMs(), left(parent.signal), timers.size], [1_000, 1, 1]);
  deadline.end();
  assert.deepEqual([left(parent.signal), timers.size], [0, 0]);
  parent.abort(new Error("stop"));
  assert.equal(deadline.signal.aborted, false, "it is over");
  const late = startDeadline(counted, -1, { what: "a bind", parent: parent.signal });
  assert.deepEqual([late.leftMs(), String(late.signal.reason)], [0, "Error: stop"]);
  late.end();
});

test("systemClock.sleep() leaves nothing on its signal, and does not begin for one that is aborted", async () => {
  const caller = new AbortController();
  await systemClock.sleep(0, caller.signal);
  assert.equal(left(caller.signal), 0);
  caller.abort(new Error("stop"));
  await assert.rejects(systemClock.sleep(60_000, caller.signal), /stop/);
});

test("both() aborts the other job when one has failed, drops what that has achieved, and throws the first failure", async () => {
  const caller = new AbortController();
  const dropped: string[] = [];
  const started = Promise.withResolvers<void>();
  const slow = {
    async run(signal: AbortSignal) {
      started.resolve();
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      return "handle";
    },
    drop: (result: string) => void dropped.push(result),
  };
  const failing = { run: () => Promise.reject(new Error("the first")) };
  for (const [one, other] of [
    [slow, failing],
    [failing, slow],
  ] as const) {
    await assert.rejects(
      within("the slow job is aborted", both<unknown, unknown>(caller.signal, one, other)),
      /the first/,
    );
  }
  assert.deepEqual(dropped, ["handle", "handle"]);
  const alsoFailing = {
    async run(signal: AbortSignal) {
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      throw new Error("the second");
    },
  };
  await assert.rejects(both(caller.signal, alsoFailing, failing), /the first/);
  const whole = both(caller.signal, slow, { run: async () => "other" });
  await started.promise;
  caller.abort(new Error("the caller has gone"));
  assert.deepEqual(await whole, ["handle", "other"]);
});

test("Latest.set() has the new value in place before a listener runs", () => {
  const latest = new Latest("old");
  const seen: (string | undefined)[] = [];
  latest.onChange((value) => seen.push(value, latest.value));
  latest.set("new");
  assert.deepEqual(seen, ["new", "new"]);
});
