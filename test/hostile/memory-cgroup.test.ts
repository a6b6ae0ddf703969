import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseHierarchy } from "./memory-cgroup.ts";

const MEMORY = "/sys/fs/cgroup/memory";
const UNIFIED = "/sys/fs/cgroup";

for (const [has, v1, v2, controls, expected] of [
  ["version 1 with version 2 beside it", [MEMORY], [UNIFIED], "hugetlb", [MEMORY, 1]],
  ["version 2 alone, as most hosts", [], [UNIFIED], "cpuset cpu io memory pids\n", [UNIFIED, 2]],
  ["version 2 whose root gives its children no memory", [], [UNIFIED], "cpu io memory_recursiveprot", undefined],
  ["no cgroups", [], [], "", undefined],
] as const) {
  test(`chooseHierarchy() of a machine that has ${has} is ${expected ? `version ${expected[1]}` : "none"}`, () => {
    const found = chooseHierarchy({ v1, v2 }, () => controls);
    assert.deepEqual(found && [found.root, found.version.number], expected);
  });
}

test("chooseHierarchy() passes over a version 2 that has the controller not", () => {
  const found = chooseHierarchy({ v1: [], v2: ["/a", "/b"] }, (root) => (root === "/b" ? "memory" : "pids"));
  assert.equal(found?.root, "/b");
});
