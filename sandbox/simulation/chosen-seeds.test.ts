import assert from "node:assert/strict";
import { test } from "node:test";
import { chosenSeeds } from "./chosen-seeds.ts";

test("chosenSeeds() answers five by default, times what the story asks, SEEDS of them or the one SEED", () => {
  assert.deepEqual(chosenSeeds({}), [1, 2, 3, 4, 5]);
  assert.equal(chosenSeeds({}, 2).length, 10);
  assert.deepEqual(chosenSeeds({ SEEDS: "2" }), [1, 2]);
  assert.deepEqual(chosenSeeds({ SEED: "7", SEEDS: "2" }, 2), [7]);
});

for (const text of ["abc", "0", "", "-1", "1.5", "1e3", " 8"]) {
  test(`chosenSeeds() refuses SEEDS="${text}" rather than run no story`, () => {
    assert.throws(() => chosenSeeds({ SEEDS: text }), {
      message: `Cannot run the stories with SEEDS="${text}": it must be a whole number from 1 on`,
    });
  });
}

test("chosenSeeds() refuses a SEED that is no number", () => {
  assert.throws(() => chosenSeeds({ SEED: "abc" }), { message: /SEED="abc"/ });
});
