import assert from "node:assert/strict";
import test from "node:test";
import { answerProblems, proseProblems, symbolProblems } from "./check-prose.ts";

const isThere = (path: string) => ["docs/a.md", "src/a.ts", "README.md"].includes(path);

test("proseProblems() finds links and named files that are not there", () => {
  const text = "[a](a.md), [b](b.md#part),\n[up](../README.md), `src/a.ts` and `src/gone.ts`.\n";
  assert.deepEqual(proseProblems("docs/x.md", text, isThere), [
    "docs/x.md:1: docs/b.md is not there",
    "docs/x.md:2: src/gone.ts is not there",
  ]);
});

test("proseProblems() leaves alone what leads elsewhere or names no file of ours", () => {
  const text =
    "[a](https://example.org/b.md) [b](#part) `src/` `etc/nsm/opa/common/.*.rego` `src/*.ts`\n| --- |\n=====\n";
  assert.deepEqual(proseProblems("docs/x.md", text, isThere), []);
});

test("proseProblems() finds what a stopped merge left", () => {
  for (const mark of ["<<<<<<< HEAD", "=======", ">>>>>>> other"]) {
    assert.match(proseProblems("a.md", `text\n${mark}\n`, isThere).join(), /^a\.md:2: the mark of a merge/);
  }
});

test("symbolProblems() finds a symbol that the file or folder beside it does not have", () => {
  const read = (path: string) => (path === "src/a.ts" ? "export function open() {}" : "class Openers {}");
  const problemsOf = (text: string) => symbolProblems("docs/x.md", text, read);
  assert.deepEqual(problemsOf("[`a`](../src/a.ts) `open`, `shut` and [b](../src/b) `Openers`, `open`"), [
    "docs/x.md:1: src/a.ts has no shut",
    "docs/x.md:1: src/b has no open",
  ]);
  assert.deepEqual(problemsOf("\n`open` in [a](../src/a.ts), `ope` in [a](../src/a.ts)"), [
    "docs/x.md:2: src/a.ts has no ope",
  ]);
  assert.deepEqual(problemsOf("[a](../src/a.ts), `shut`; [b](b.md) `shut`; [c](https://c/src/c) `shut`"), []);
});

test("answerProblems() finds a question whose answer is no file, and a table that is not there", () => {
  const table = (...answers: readonly string[]) =>
    ["# C", "", "## Where is what", "", ...answers.map((answer) => `| Where? | ${answer} |`), "", "## Tests"].join(
      "\n",
    );
  const problemsOf = (text: string) => answerProblems("C.md", text, isThere);
  assert.deepEqual(problemsOf(table("`src/a.ts`")), []);
  assert.deepEqual(problemsOf(table("`src/a.ts`", "`src/gone.ts`", "`README.md`", "`src/a.ts`, `src/a.ts`", "")), [
    "C.md:6: `src/gone.ts` is not one file of src that is there",
    "C.md:7: `README.md` is not one file of src that is there",
    "C.md:8: `src/a.ts`, `src/a.ts` is not one file of src that is there",
    "C.md:9:  is not one file of src that is there",
  ]);
  assert.match(problemsOf("# C\n\n## Tests\n| Where? | `src/a.ts` |\n").join(), /has no question/);
});
