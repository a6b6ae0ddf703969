import assert from "node:assert/strict";
import test from "node:test";
import { addCounts, closingLine, KNOWN_LACK, readClosingLine, type TestCounts } from "./test-counts.ts";

const one: TestCounts = { passed: 1, failed: 0, skips: [] };

test("closingLine() adds up, and names skips only where there are some", () => {
  assert.equal(closingLine(addCounts(one, one)), "2 passed, 0 failed");
  const skips = [{ name: "a", why: "b" }];
  assert.equal(closingLine(addCounts(one, { ...one, skips })), "2 passed, 0 failed, 1 skipped");
});

test("closingLine() does not count skips that the job has announced", () => {
  const skips = [
    { name: "a", why: `${KNOWN_LACK}vlan` },
    { name: "b", why: "needs vlan" },
  ];
  assert.equal(closingLine({ ...one, skips }), "1 passed, 0 failed, 1 skipped");
});

test("readClosingLine() reads the last line of counts, and nothing that only looks like one", () => {
  assert.deepEqual(readClosingLine("3 passed, 1 failed\nx\n12 passed, 0 failed, 2 skipped\n"), {
    passed: 12,
    failed: 0,
    skipped: 2,
  });
  for (const text of ["", "all passed", "so 1 passed, 0 failed", "1 passed, 0 failed!", "-1 passed, 0 failed"]) {
    assert.equal(readClosingLine(text), undefined, text);
  }
});
