import assert from "node:assert/strict";
import test from "node:test";
import { longestFirst } from "./test-order.ts";

test("longestFirst() goes by the last run, and by what is known where there was none", () => {
  const files = ["a.test.ts", "b.test.ts", "test/sandbox/killed.test.ts", "c.test.ts"];
  const order = longestFirst(files, { "b.test.ts": 20_000, "c.test.ts": 5 });
  assert.deepEqual(order, ["b.test.ts", "test/sandbox/killed.test.ts", "c.test.ts", "a.test.ts"]);
  assert.deepEqual(longestFirst(["b", "a"], {}), ["a", "b"]);
});
