import assert from "node:assert/strict";
import test from "node:test";
import { wordProblems } from "./check-words.ts";

const rows = [
  { says: "a comment", text: "const a = 1; // nobody has it", found: ["nobody"] },
  { says: "a comment over lines", text: "/**\n * For people.\n * Anew.\n */", found: ["people", "Anew"] },
  { says: "a text", text: 'log.warn("x", { why: "somebody has it" });', found: ["somebody"] },
  { says: "a template", text: "throw new Error(`it goes on`);", found: ["goes on"] },
  { says: "no identifier", text: "const people = anybody(room);", found: [] },
  { says: "no regular expression", text: 'assert.match(text, /"nobody"/);', found: [] },
  { says: "no division", text: "const half = all / 2; // a / b, unless told\n", found: ["unless told"] },
  { says: "room for something, which is no module", text: "// Is there room for one more?", found: [] },
  {
    says: "who is told, and not what is told apart",
    text: "// It is told; they can be told apart.",
    found: ["is told"],
  },
  { says: "a way home", text: "// The VF comes home, on its way home.", found: ["comes home"] },
  { says: "a module", text: "// The room reads no clock; each room has its door.", found: ["The room"] },
  { says: "a comment's own words", text: 'log.info("it is asked"); // The kernel is asked.', found: ["is asked"] },
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
});
