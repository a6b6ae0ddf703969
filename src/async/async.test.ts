import assert from "node:assert/strict";
import { test } from "node:test";
import { createBackoff } from "./backoff.ts";
import { systemClock } from "./clock.ts";
import { startDeadline } from "./deadline.ts";
import { printable } from "./error-message.ts";
import { KeyedQueue } from "./keyed-queue.ts";
import { Latest } from "./latest.ts";
import { LimitedQueue } from "./limited-queue.ts";
import { UndoStack } from "./undo.ts";

test("KeyedQueue.run() keeps the order within a key and lets other keys pass", async () => {
  const queue = new KeyedQueue<string>();
  const seen: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = queue.run("a", async () => {
    await gate.promise;
    seen.push("a1");
  });
  const second = queue.run("a", async () => void seen.push("a2"));
  await queue.run("b", async () => void seen.push("b1"));
  gate.resolve();
  await Promise.all([first, second]);
  assert.deepEqual(seen, ["b1", "a1", "a2"]);
});

test("KeyedQueue.waiting counts jobs that have not had their turn, by key too, and one no more whose caller has gone", async () => {
  const queue = new KeyedQueue<string>();
  const gate = Promise.withResolvers<void>();
  const leave = new AbortController();
  const first = queue.run("a", () => gate.promise);
  const second = queue.run("a", async () => {});
  const third = queue.run("a", async () => assert.fail("its caller has gone"), leave.signal);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([queue.waiting, queue.waitingFor("a"), queue.waitingFor("b")], [2, 2, 0]);
  leave.abort(new Error("gone"));
  assert.deepEqual([queue.waiting, queue.waitingFor("a")], [1, 1]);
  gate.resolve();
  await Promise.allSettled([first, second, third]);
  assert.equal(queue.waiting, 0);
});

test("KeyedQueue.run() never runs a job whose caller has gone, and continues after a failed one", async () => {
  const queue = new KeyedQueue<string>();
  const gate = Promise.withResolvers<void>();
  const failing = queue.run("a", () => gate.promise);
  const caller = new AbortController();
  let ran = false;
  const job = async () => {
    ran = true;
  };
  const dropped = queue.run("a", job, caller.signal);
  caller.abort(new Error("caller has gone"));
  await assert.rejects(dropped, /caller has gone/);
  gate.reject(new Error("broken"));
  await assert.rejects(failing, /broken/);
  assert.equal(await queue.run("a", async () => "still works"), "still works");
  assert.equal(ran, false);
  await new Promise(setImmediate);
  assert.equal(queue.busyKeys, 0);
});

test("KeyedQueue.run() waits for a job that runs, though its caller has gone", async () => {
  const queue = new KeyedQueue<string>();
  const [begun, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const caller = new AbortController();
  const job = async () => {
    begun.resolve();
    await gate.promise;
    return "done";
  };
  const result = queue.run("a", job, caller.signal);
  await begun.promise;
  caller.abort(new Error("caller has gone"));
  gate.resolve();
  assert.equal(await result, "done");
});

test("KeyedQueue.idle() waits for the jobs of all keys, also for those that come meanwhile", async () => {
  const queue = new KeyedQueue<string>();
  await queue.idle();
  const gates = { a: Promise.withResolvers<void>(), b: Promise.withResolvers<void>() };
  let isIdle = false;
  void queue.run("a", () => gates.a.promise);
  const idle = queue.idle().then(() => {
    isIdle = true;
  });
  queue.run("b", () => gates.b.promise).catch(() => {});
  gates.a.resolve();
  await new Promise(setImmediate);
  assert.deepEqual([isIdle, queue.busyKeys], [false, 1]);
  gates.b.reject(new Error("a job that fails"));
  await idle;
  assert.equal(queue.busyKeys, 0);
});

test("UndoStack.unwind() goes backwards past failures and names them", async () => {
  const undo = new UndoStack();
  const seen: string[] = [];
  undo.push("one", () => void seen.push("one"));
  undo.push("two", async () => {
    throw new Error("stuck");
  });
  undo.push("three", () => void seen.push("three"));
  await undo.unwind((what, error) => seen.push(`${what}: ${(error as Error).message}`));
  assert.deepEqual(seen, ["three", "two: stuck", "one"]);
  assert.equal(undo.size, 0);
});

test("UndoStack.release() keeps what was done", async () => {
  const undo = new UndoStack();
  let undone = false;
  undo.push("one", () => {
    undone = true;
  });
  undo.release();
  await undo.unwind(() => {});
  assert.equal(undone, false);
});

test("Latest.first() waits for the first value and next() for a later one", async () => {
  const latest = new Latest<number>();
  const first = latest.first();
  latest.set(1);
  const next = latest.next();
  latest.set(2);
  assert.deepEqual([await first, await next, await latest.first()], [1, 2, 2]);
});

test("Latest.next() lets go when its signal is aborted", async () => {
  const latest = new Latest<number>(1);
  await assert.rejects(latest.next(AbortSignal.abort(new Error("stop"))), /stop/);
});

test("createBackoff() doubles up to the limit and starts again after reset()", () => {
  const backoff = createBackoff({ firstMs: 100, limitMs: 300, random: () => 0.999_999 });
  const delays = [backoff.nextMs(), backoff.nextMs(), backoff.nextMs()].map(Math.round);
  backoff.reset();
  assert.deepEqual([...delays, Math.round(backoff.nextMs())], [100, 200, 300, 100]);
  const least = createBackoff({ firstMs: 100, limitMs: 300, random: () => 0 });
  assert.deepEqual([least.nextMs(), least.nextMs(), least.nextMs()], [50, 100, 150]);
});

test("startDeadline() names the work whose time is up and follows its parent", async () => {
  const deadline = startDeadline(systemClock, 1, { what: "bind of a VF" });
  await new Promise((resolve) => deadline.signal.addEventListener("abort", resolve, { once: true }));
  assert.match(String(deadline.signal.reason), /bind of a VF took longer than 1 ms/);
  const parent = new AbortController();
  const child = startDeadline(systemClock, 60_000, { what: "x", parent: parent.signal });
  parent.abort(new Error("stop"));
  assert.match(String(child.signal.reason), /stop/);
  deadline.end();
  child.end();
});

test("systemClock.after() waits longer than a timer of Node can, and keeps no process alive", (t) => {
  const armed: { readonly callback: () => void; readonly ms: number | undefined }[] = [];
  let unrefs = 0;
  const real = globalThis.setTimeout;
  t.after(() => Object.assign(globalThis, { setTimeout: real }));
  const fake = (callback: () => void, ms?: number) => {
    armed.push({ callback, ms });
    return { unref: () => void unrefs++ };
  };
  Object.assign(globalThis, { setTimeout: fake });
  let fired = 0;
  systemClock.after(2_147_483_647 + 1_000, () => void fired++);
  armed[0]?.callback();
  assert.deepEqual([fired, armed.map(({ ms }) => ms), unrefs], [0, [2_147_483_647, 1_000], 2]);
  armed[1]?.callback();
  assert.equal(fired, 1);
});

test("printable() is bounded and in one line", () => {
  assert.equal(printable(`a\nb\u001b${"x".repeat(100)}`), `a?b?${"x".repeat(76)}…`);
  assert.equal(printable("y".repeat(80)), "y".repeat(80));
});

test("systemClock.sleep() ends early with the reason of its signal", async () => {
  await assert.rejects(systemClock.sleep(60_000, AbortSignal.timeout(1)), { name: "TimeoutError" });
});

test("LimitedQueue.run() runs so many jobs at once, the others in their order, and continues after a failed one", async () => {
  const queue = new LimitedQueue(2);
  const gates = [0, 1, 2, 3].map(() => Promise.withResolvers<void>());
  const seen: number[] = [];
  const jobs = gates.map(({ promise }, index) =>
    queue.run(() => {
      seen.push(index);
      return promise;
    }),
  );
  assert.deepEqual(seen, [0, 1], "at once");
  gates[1]?.reject(new Error("broken"));
  await assert.rejects(jobs[1] ?? Promise.resolve(), /broken/);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(seen, [0, 1, 2]);
  const later = queue.run(async () => void seen.push(4));
  assert.deepEqual(seen, [0, 1, 2], "a place that was handed on is not free");
  for (const { resolve } of gates) resolve();
  await Promise.allSettled([...jobs, later]);
  assert.deepEqual(seen, [0, 1, 2, 3, 4]);
  let running = 0;
  const beside = await Promise.all(
    Array.from({ length: 4 }, () =>
      queue.run(async () => {
        running += 1;
        await new Promise((resolve) => setImmediate(resolve));
        return running--;
      }),
    ),
  );
  assert.deepEqual(beside, [2, 2, 2, 1], "jobs that have waited leave no more room than there was");
});
