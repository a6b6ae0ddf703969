import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { Wakeup } from "./wakeup.ts";

test("Wakeup.wait() ends once for each ring, one before it too, and else by its time; nothing of it stays", async () => {
  const clock = new HandClock();
  const bell = new Wakeup(clock);
  const { signal } = new AbortController();
  let ended = 0;
  const wait = async () => {
    void bell.wait(1_000, signal).then(() => ended++);
    await settled();
    return ended;
  };
  bell.ring();
  bell.ring();
  assert.equal(await wait(), 1, "rung before");
  assert.equal(await wait(), 1);
  bell.ring();
  await settled();
  assert.deepEqual([ended, clock.timerCount], [2, 0], "rung meanwhile");
  assert.equal(await wait(), 2, "that ring has been heard");
  await clock.pass(1_000);
  assert.deepEqual([ended, clock.timerCount, getEventListeners(signal, "abort")], [3, 0, []]);
});

test("Wakeup.wait() ends with its signal, one that was aborted before too", async () => {
  const clock = new HandClock();
  const bell = new Wakeup(clock);
  const gone = new AbortController();
  const waiting = bell.wait(1_000, gone.signal);
  gone.abort();
  await waiting;
  await bell.wait(1_000, gone.signal);
  assert.equal(clock.timerCount, 0);
});
