import assert from "node:assert/strict";
import { test } from "node:test";
import { Seed } from "./seed.ts";

test("Seed: what one name gets at one seed no other name gets at any other seed", () => {
  const names = Array.from({ length: 10 }, (_, digit) => `fate ${digit}`);
  const firstOf = new Map<number, string>();
  for (let number = 1; number <= 300; number++) {
    const seed = new Seed(number);
    for (const name of names) {
      const fraction = seed.random(name).fraction();
      assert.equal(firstOf.get(fraction), undefined, `${name} at seed ${number} is as ${firstOf.get(fraction)}`);
      firstOf.set(fraction, `${name} at seed ${number}`);
    }
  }
});

test("Seed: the same name is the same numbers at the same seed", () => {
  const draw = () => new Seed(7).draw("a name", 1_000_000);
  assert.equal(draw(), draw());
});
