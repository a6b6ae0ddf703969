import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import test from "node:test";
import { groupsOf, longestFirst, sharingTests } from "./test-order.ts";

test("longestFirst() goes by the last run, and by what is known where there was none", () => {
  const files = ["a.test.ts", "b.test.ts", "test/sandbox/killed.test.ts", "c.test.ts"];
  const order = longestFirst(
    files.map((file) => [file]),
    { "b.test.ts": 20_000, "c.test.ts": 5 },
  );
  assert.deepEqual(order.flat(), ["b.test.ts", "test/sandbox/killed.test.ts", "c.test.ts", "a.test.ts"]);
  assert.deepEqual(longestFirst([["b"], ["a"]], {}), [["a"], ["b"]]);
  const [longer, shorter] = [["test/sandbox/killed-vfio.test.ts"], ["test/sandbox/killed.test.ts", "b.test.ts"]];
  assert.deepEqual(longestFirst([shorter, longer], {}), [longer, shorter]);
});

test("longestFirst() takes the files of a group together", () => {
  const groups = [["a"], ["b", "c"], ["d"]];
  assert.deepEqual(longestFirst(groups, { a: 5, b: 3, c: 3, d: 7 }), [["d"], ["b", "c"], ["a"]]);
});

test("groupsOf() takes unit tests of a module together, and leaves all others alone", () => {
  const rooms = [
    ["src/nsm/a.test.ts", "src/nsm/deep/b.test.ts"],
    ["sandbox/a.test.ts", "sandbox/demo/b.test.ts"],
    ["sandbox/simulation/a.test.ts", "sandbox/simulation/b.test.ts"],
  ];
  const alone = [["src/main.test.ts"], ["src/config.test.ts"], ["test/sandbox/a.test.ts"], ["test/sandbox/b.test.ts"]];
  assert.deepEqual(groupsOf([...rooms, ...alone].flat()), [...rooms, ...alone]);
});

test("groupsOf() takes some sandbox and real tests together, each of which is there", () => {
  const groups = groupsOf(sharingTests);
  assert.ok(groups.length > 1 && groups.every(({ length }) => length > 1));
  for (const file of sharingTests) assert.ok(existsSync(file), file);
});
