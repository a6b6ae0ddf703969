import assert from "node:assert/strict";
import { test } from "node:test";
import { HandClock } from "../nsm/testing/fakes.ts";
import { Rate } from "./rate.ts";

const MANAGER = "manager";

function rate(each: number, others: number) {
  const clock = new HandClock();
  const limited = new Rate({ each, others }, (owner) => owner === MANAGER, clock);
  return { clock, take: (owner: string, amount = 1) => limited.take(owner, amount) };
}

test("Rate.take() gives an owner so much in each second, and no more after a rest", async () => {
  const { clock, take } = rate(100, 1_000_000);
  assert.deepEqual([take("a", 100), take("a")], [true, false]);
  await clock.pass(500);
  assert.deepEqual([take("a", 50), take("a"), take("a")], [true, false, false], "half a second's");
  await clock.pass(60_000);
  assert.deepEqual([take("a", 100), take("a")], [true, false], "a second's, not a minute's");
});

test("Rate.take() lets one that is larger than what is left go, and makes up for it", async () => {
  const { clock, take } = rate(100, 1_000_000);
  assert.deepEqual([take("a", 300), take("a")], [true, false]);
  await clock.pass(2_000);
  assert.equal(take("a"), false);
  await clock.pass(100);
  assert.equal(take("a"), true);
});

test("Rate.take() gives all owners together so much, the manager apart", async () => {
  const { clock, take } = rate(100, 150);
  assert.deepEqual([take("a", 100), take("b", 50), take("b"), take(MANAGER, 100)], [true, true, false, true]);
  await clock.pass(1_000);
  assert.deepEqual([take("a", 100), take("b", 100), take("c")], [true, true, false]);
});

test("Rate remembers 1024 owners: those that have rested longest begin again", () => {
  const { take } = rate(1, 1_000_000);
  for (const owner of ["first", "second"]) assert.deepEqual([take(owner), take(owner)], [true, false]);
  for (let at = 0; at < 1_022; at += 1) take(`owner ${at}`);
  assert.equal(take("first"), false, "it is the one that was heard last");
  take("one more");
  assert.deepEqual([take("first"), take("second")], [false, true]);
});
