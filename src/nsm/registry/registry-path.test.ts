import assert from "node:assert/strict";
import { test } from "node:test";
import { formatRegistryPath, parseRegistryPath } from "./registry-path.ts";

const tokens = (count: number) => Array.from({ length: count }, (_, at) => ({ token: `t${at}` }));
const text = (Index: unknown, PathSegments: unknown) => JSON.stringify({ Index, PathSegments });

const rows: readonly (readonly [
  says: string,
  values: readonly string[] | undefined,
  index?: number,
  count?: number,
])[] = [
  ["no header", undefined],
  ["a header without a value", []],
  ["what is no JSON", ["{"]],
  ["null", ["null"], 0, 0],
  ["no tokens, as Go writes them", [text(0, null)], 0, 0],
  ["an index alone beyond its tokens", [text(1, null)]],
  ["the last of two values", [text(0, tokens(1)), text(1, tokens(2))], 1, 2],
  ["the last index that there is", [text(15, tokens(16))], 15, 16],
  ["an index that is one too large", [text(2, tokens(2))]],
  ["an index below zero", [text(-1, tokens(2))]],
  ["an index that is no whole number", [text(0.5, tokens(2))]],
  ["one segment more than a path has", [text(0, tokens(17))]],
  ["a segment whose token is no text", [text(0, [{ token: "a" }, { token: 7 }])]],
  ["a segment that is none", [text(0, [null])]],
];

for (const [says, values, index, count = 0] of rows) {
  test(`parseRegistryPath() makes ${index === undefined ? "nothing" : "a path"} of ${says}`, () => {
    const expected = index === undefined ? undefined : { index, tokens: tokens(count).map(({ token }) => token) };
    assert.deepEqual(parseRegistryPath(values), expected);
  });
}

test("formatRegistryPath() writes what parseRegistryPath() reads", () => {
  const path = { index: 1, tokens: ["a", "b"] };
  assert.deepEqual(parseRegistryPath([formatRegistryPath(path)]), path);
});
