import assert from "node:assert/strict";
import test from "node:test";
import { wordProblems } from "./check-words.ts";

const rows = [
  { says: "a comment", text: "const a = 1; // nobody has it", found: ["nobody"] },
  { says: "a comment over lines", text: "/**\n * For people.\n * Anew.\n */", found: ["people", "Anew"] },
  { says: "a text", text: 'log.warn("x", { why: "somebody has it" });', found: ["somebody"] },
  { says: "a template", text: "throw new Error(`it goes on`);", found: ["goes on"] },
  { says: "no name that has only a word of comments", text: "const people = anyone(room);", found: [] },
  { says: "no regular expression", text: 'assert.match(text, /"nobody"/);', found: [] },
  { says: "no division", text: "const half = all / 2; // a / b, unless told\n", found: ["unless told"] },
  { says: "room for something, which is no module", text: "// Is there room for one more?", found: [] },
  {
    says: "who is told, and not what is told apart",
    text: "// It is told; they can be told apart.",
    found: ["is told"],
  },
  { says: "a way home", text: "// The VF comes home, on its way home.", found: ["comes home", "way home"] },
  { says: "a module", text: "// The room reads no clock; each room has its door.", found: ["The room", "each room"] },
  { says: "a comment's own words", text: 'log.info("it is asked"); // The kernel is asked.', found: ["is asked"] },
  { says: "a phrase that is broken over two lines", text: "  // It goes\n  // on.", found: ["goes on"] },
  {
    says: "a phrase that is broken within a block",
    text: "/**\n   * The VF is\n   * told.\n   */",
    found: ["is told"],
  },
  { says: "no phrase across two comments", text: "a(); // It goes\nb(); // on c.", found: [] },
  { says: "no phrase across paragraphs", text: "// It goes\n//\n// on the list.", found: [] },
  { says: "names, by their words", text: "const LOOK_MS = node.askSoon(mask, lookup);", found: ["LOOK_MS", "askSoon"] },
];

for (const { says, text, found } of rows) {
  test(`wordProblems() reads ${says}`, () => {
    const problems = wordProblems("src/a/b.ts", text);
    assert.deepEqual(
      problems.map((problem) => /: "(.*)": say/.exec(problem)?.[1]),
      found,
    );
  });
}

test("wordProblems() reads all of a document, and names the line", () => {
  assert.deepEqual(wordProblems("docs/a.md", "# A\n\nIt `goes on`.\n"), ['docs/a.md:3: "goes on": say continue']);
  assert.deepEqual(wordProblems("docs/a.md", "# A\n\n- It is sent, unless\n  told.\n"), [
    'docs/a.md:3: "unless told": say by default',
  ]);
});

test("wordProblems() reads comments and texts of Go", () => {
  const text = "// The leaf of\n// whoever it is.\nvar people = 1\nvar a = `somebody`\n";
  assert.deepEqual(
    wordProblems("interop/a.go", text).map((problem) => problem.slice(0, 25)),
    ['interop/a.go:2: "whoever"', 'interop/a.go:4: "somebody'],
  );
});

test("wordProblems() reads comments of shell and YAML, and nothing else of them", () => {
  const text = "#!/bin/sh\npeople=1 # It goes\n# Unless\n# told, it goes\n#on.\necho people#1 nobody\n";
  assert.deepEqual(wordProblems("lab/a.sh", text), [
    'lab/a.sh:3: "Unless told": say by default',
    'lab/a.sh:4: "goes on": say continue',
  ]);
});
