import assert from "node:assert/strict";
import test from "node:test";
import { costLines, readCost } from "./test-costs.ts";

test("readCost() reads the times behind a command of any name", () => {
  // cat /proc/self/stat (Linux 6.1), with the name of the command changed
  const stat = `4711 (a) b) R 1 4711 1 34816 4711 4194304 1 2 3 4 12 3 450 60 20 0 1 0 100 1 1 18446744073709551615 1`;
  assert.deepEqual(readCost(stat), { ownMs: 150, childrenMs: 5_100 });
});

test("costLines() names the dearest first, with their children, and counts all", () => {
  const costs = [
    { file: "a.test.ts", ownMs: 100, childrenMs: 0 },
    { file: "b.test.ts", ownMs: 200, childrenMs: 1_800 },
    { file: "c.test.ts", ownMs: 300, childrenMs: 0 },
  ];
  assert.deepEqual(
    costLines(costs, 2).map((line) => line.trim()),
    [
      "2.0 s of CPU,     1.8 in children: b.test.ts",
      "0.3 s of CPU,     0.0 in children: c.test.ts",
      "2.4 s of CPU for 3 files",
    ],
  );
});
