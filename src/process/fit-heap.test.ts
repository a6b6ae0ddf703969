import assert from "node:assert/strict";
import { test } from "node:test";
import { fittingOldSpace } from "./fit-heap.ts";

const MIB = 1024 * 1024;
/** `--max-old-space-size=256`, and what is young. */
const SHIPPED = 268 * MIB;

for (const [says, memoryBytes, is] of [
  ["what the manifests give", 256 * MIB, 144],
  ["half of that", 128 * MIB, 67],
  ["the least that is promised", 96 * MIB, 48],
  ["less than it can start with", 64 * MIB, 32],
  ["more than it can use", 512 * MIB, undefined],
  ["no limit, as version 1 has it", 2 ** 64, undefined],
  ["none that could be read", 0, undefined],
] as const) {
  test(`fittingOldSpace() of ${says}`, () => {
    assert.equal(fittingOldSpace({ heapLimitBytes: SHIPPED, memoryBytes }), is);
  });
}

test("fittingOldSpace() leaves an operator's smaller limit", () => {
  assert.equal(fittingOldSpace({ heapLimitBytes: 100 * MIB, memoryBytes: 256 * MIB }), undefined);
});
