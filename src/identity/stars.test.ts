import assert from "node:assert/strict";
import { test } from "node:test";
import { matchesStars } from "./stars.ts";

test("many stars cost no more comparisons than the pattern is long, times what is given", () => {
  let compared = 0;
  const fits = (part: string, char: string) => {
    compared += 1;
    return part === char;
  };
  const [parts, given] = [[..."a*".repeat(60), ..."a".repeat(60), "b"], [..."a".repeat(2_000)]];
  assert.ok(!matchesStars(parts, given, { isStar: (part) => part === "*", fits }));
  assert.ok(compared > given.length && compared <= parts.length * given.length, `${compared} compared`);
});
