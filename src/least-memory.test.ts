import assert from "node:assert/strict";
import { test } from "node:test";
import { memoryShortage } from "./least-memory.ts";

const MIB = 1024 * 1024;

test("memoryShortage() is said below 96 MiB, and of no process without a limit", () => {
  for (const enough of [undefined, 0, 2 ** 64, 256 * MIB, 96 * MIB]) assert.equal(memoryShortage(enough), undefined);
  assert.match(memoryShortage(96 * MIB - 1) ?? "", /has 95 MiB of memory, and the forwarder needs 96: .*256Mi/);
  // What NSM's published manifest gives.
  assert.match(memoryShortage(40 * MIB) ?? "", /has 40 MiB/);
});
