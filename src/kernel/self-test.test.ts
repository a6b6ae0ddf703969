import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { selfTest } from "./self-test.ts";

test("selfTest() passes here and leaves nothing open", async () => {
  const before = readdirSync("/proc/self/fd").length;
  await selfTest();
  assert.equal(readdirSync("/proc/self/fd").length, before);
});
