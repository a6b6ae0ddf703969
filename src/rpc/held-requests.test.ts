import assert from "node:assert/strict";
import { test } from "node:test";
import { HeldRequests } from "./held-requests.ts";

const MANAGER = "manager";
const heldOf = (limits: { each: number; others: number; manager: number }) =>
  new HeldRequests(limits, (owner) => owner === MANAGER);

/** Counts for 1,000,000 and 100,000. */
const LARGE = { elements: 6_000, bytes: 20_000 };
const SMALL = { elements: 500, bytes: 10_000 };

test("HeldRequests.take() counts elements and bytes alike", () => {
  const held = heldOf({ each: 1e7, others: 4e7, manager: 1e7 });
  const taken = [LARGE, SMALL, { elements: 0, bytes: 300_000 }].map((request) => held.take("a", request));
  assert.deepEqual(taken, [1_000_000, 100_000, 600_000]);
});

test("HeldRequests.take() keeps a quarter of each share for what is small, and gives all of it back", () => {
  const held = heldOf({ each: 4_000_000, others: 16_000_000, manager: 4_000_000 });
  for (const owner of ["a", MANAGER]) {
    const takeAll = (request: typeof LARGE) => {
      const taken: number[] = [];
      for (let one = held.take(owner, request); one !== undefined; one = held.take(owner, request)) taken.push(one);
      return taken;
    };
    const first = takeAll(LARGE);
    assert.deepEqual([first.length, takeAll(SMALL).length], [3, 10], owner);
    for (const one of first) held.give(owner, one);
    assert.deepEqual([takeAll(SMALL).length, held.take(owner, LARGE)], [30, undefined], owner);
    for (let at = 0; at < 40; at += 1) held.give(owner, 100_000);
    assert.equal(takeAll(LARGE).length, 3, "what was refused holds nothing");
  }
});

test("HeldRequests.take() counts what is larger than a share as the most that one may have", () => {
  const held = heldOf({ each: 400_000, others: 1_600_000, manager: 400_000 });
  assert.deepEqual(
    [held.take("a", LARGE), held.take("a", LARGE), held.take("b", LARGE)],
    [300_000, undefined, 300_000],
  );
});
