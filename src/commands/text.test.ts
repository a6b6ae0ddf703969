import assert from "node:assert/strict";
import test from "node:test";
import { table } from "./table.ts";
import { counted, durationText, printable, wrap } from "./text.ts";

test("wrap() fills a line to its last column, and leaves a longer word whole", () => {
  assert.deepEqual(wrap("one two", 7), ["one two"]);
  assert.deepEqual(wrap("one two", 6), ["one", "two"]);
  assert.deepEqual(wrap("a  b\nunbreakable c", 4), ["a b", "unbreakable", "c"]);
});

test("printable() leaves a peer's text nothing that a terminal obeys, nor what turns its direction", () => {
  assert.equal(printable("a\u001b[2J\u009b\u2028\u2029\u202e\u2066b"), "a?[2J?????b");
  assert.equal(printable("käse"), "käse");
});

for (const [ms, text] of [
  [999, "0 s"],
  [1_000, "1 s"],
  [59_999, "59 s"],
  [90_000, "1 min"],
  [3_600_000, "1 h"],
  [7_980_000, "2 h 13 min"],
  [86_400_000 + 3_599_999, "1 d"],
  [90_000_000, "1 d 1 h"],
] as const) {
  test(`durationText() of ${ms} ms is ${text}`, () => assert.equal(durationText(ms), text));
}

test("counted() is right of one and of none", () => {
  assert.deepEqual(
    [0, 1, 2].map((count) => counted(count, "VF")),
    ["0 VFs", "1 VF", "2 VFs"],
  );
});

const same = (text: string) => text;
const cells = (...texts: readonly string[]) => texts.map((text) => ({ text }));

test("table() cuts the widest columns to the line, with a sign, and no column to less than says something", () => {
  const rows = [cells("short", "a".repeat(30), "b".repeat(20))];
  const [head = "", line = ""] = table(["One", "Two", "Three"], rows, { columns: 40, paintHead: same });
  assert.equal(line.length, 40);
  assert.match(line, /^short {2}a{14}… {2}b{15}…$/);
  assert.ok(head.startsWith("One"));
  const [, narrow = ""] = table(["One", "Two", "Three"], rows, { columns: 10, paintHead: same });
  assert.equal(narrow, "short  aaaaa…  bbbbb…");
});

test("table() cuts no column that is to stay whole, and leaves out one in which nothing is said", () => {
  const address = { text: "0000:3b:01.0-and-more", isWhole: true };
  const [head, line] = table(["VF", "None", "Pod"], [[address, { text: "" }, { text: "p".repeat(20) }]], {
    columns: 30,
    paintHead: same,
  });
  assert.equal(line, `${address.text}  pppppp…`);
  assert.equal(head, `VF${" ".repeat(address.text.length)}Pod`);
});
