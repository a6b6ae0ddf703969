import assert from "node:assert/strict";
import { test } from "node:test";
import { isNoMore, type LeftOver } from "./left-over.ts";

const settled: LeftOver = {
  namespaces: 1,
  files: ["/dev/null", "/sys/one", "/sys/one"],
  journal: ["a"],
  connections: [],
};

const observations: readonly {
  readonly says: string;
  readonly change: Partial<LeftOver>;
  readonly isNoMore: boolean;
}[] = [
  { says: "the same", change: {}, isNoMore: true },
  { says: "a file less, which was being read then", change: { files: ["/dev/null", "/sys/one"] }, isNoMore: true },
  { says: "another file", change: { files: ["/dev/null", "/sys/two"] }, isNoMore: false },
  { says: "a file once more", change: { files: ["/dev/null", "/dev/null"] }, isNoMore: false },
  { says: "a namespace more", change: { namespaces: 2 }, isNoMore: false },
  { says: "another journal", change: { journal: [] }, isNoMore: false },
  { says: "a connection", change: { connections: [{}] }, isNoMore: false },
];
for (const { says, change, isNoMore: expected } of observations) {
  test(`isNoMore() is ${expected} for ${says}`, () => {
    assert.equal(isNoMore({ ...settled, ...change }, settled), expected);
  });
}
