import assert from "node:assert/strict";
import test from "node:test";
import { DATED_TABLES, invariantProblems, namedPathProblems, namedSymbolProblems } from "./check-names.ts";

const there = ["src", "src/nsm", "src/nsm/a.ts", "tools", "tools/b.ts", "src/rpc", "src/rpc/http2/"];
const isThere = (path: string) => there.includes(path);

test("namedPathProblems() finds files and folders that are neither in the project nor in src", () => {
  const text =
    "`nsm/a.ts`, `src/nsm/a.ts:7`, `tools/b.ts`, `nsm/gone.ts`\n`vf/gone.test.ts` in `rpc/http2/` and `rpc/http3/`";
  assert.deepEqual(namedPathProblems("a.md", text, isThere), [
    "a.md:1: nsm/gone.ts is not there",
    "a.md:2: vf/gone.test.ts is not there",
    "a.md:2: rpc/http3/ is not there",
  ]);
});

test("namedPathProblems() leaves alone what is made, and paths of others", () => {
  const text = "`dist/forwarder.mjs`, `pkg/networkservice/chain.go`, `sdk/pkg/`, `a.ts`, nsm/gone.ts";
  assert.deepEqual(namedPathProblems("a.md", text, isThere), []);
});

test("namedPathProblems() takes the tables of a decision that says so for a record, and nothing else of it", () => {
  const text = `${DATED_TABLES}\n| change | \`nsm/gone.ts\` |\nand \`nsm/gone.ts\``;
  assert.deepEqual(namedPathProblems("docs/decisions/1.md", text, isThere), [
    "docs/decisions/1.md:3: nsm/gone.ts is not there",
  ]);
  assert.equal(namedPathProblems("docs/operate.md", text, isThere).length, 2);
  assert.equal(namedPathProblems("docs/decisions/1.md", text.replace(DATED_TABLES, ""), isThere).length, 2);
});

test("namedSymbolProblems() finds symbols and members that the code does not have", () => {
  const files = ["class Attachment { receiveFiles() {} }", "class Other { meet() {} }"];
  const code = { files, words: new Set(files.flatMap((file) => file.match(/\w+/g) ?? [])) };
  const problemsOf = (text: string) => namedSymbolProblems("a.md", text, code);
  assert.deepEqual(problemsOf("`Attachment.receiveFiles`, `#meet`, `Other`\n`Attachment.meet` and `met`"), [
    "a.md:2: src has no Attachment.meet",
    "a.md:2: src has no met",
  ]);
  const table = "| there | here | x |\n|---|---|---|\n| `gone` | `Other` | `gone` |\n| `Other` | `gone` | `Other` |";
  assert.deepEqual(problemsOf(table), ["a.md:4: src has no gone"]);
  assert.deepEqual(problemsOf(`${table.split("\n").slice(0, 3).join("\n")}\n\n\`gone\``), ["a.md:5: src has no gone"]);
});

test("invariantProblems() finds an invariant without a test, and a section that is not there", () => {
  const text =
    "# A\n\n## Invariants\n\n* One\n  (`src/a.test.ts`).\n* Two `src/b.ts`\n  more.\n* Three (`tools/check-c.ts`).\n\n## Words\n* x\n";
  assert.deepEqual(invariantProblems("A.md", text), ["A.md:7: this invariant names no test or check that holds it"]);
  assert.match(invariantProblems("A.md", "# A\n").join(), /no section/);
  assert.match(invariantProblems("A.md", "# A\n\n## Invariants\n\n").join(), /has none/);
});
