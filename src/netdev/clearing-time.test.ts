import assert from "node:assert/strict";
import { test } from "node:test";
import { ClearingTime } from "./clearing-time.ts";
import type { NetdevError } from "./error.ts";

test("ClearingTime counts what is removed, of all kinds together, and nothing else", async () => {
  let nowMs = 5_000;
  const time = new ClearingTime({ monotonicMs: () => nowMs }, { link: "eth1", limitMs: 10 });
  const removed: string[] = [];
  const remove = async (one: string) => {
    removed.push(one);
    nowMs += 5;
  };
  await time.removeEach("rules", ["first"], remove);
  nowMs += 60_000;
  const rest = time.removeEach("links", ["second", "third", "fourth"], remove);
  await assert.rejects(rest, ({ fault }: NetdevError) => {
    assert.deepEqual(fault, { kind: "not-cleared", link: "eth1", limitMs: 10, what: "links", left: 2 });
    return true;
  });
  assert.deepEqual(removed, ["first", "second"]);
});
