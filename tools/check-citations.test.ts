import assert from "node:assert/strict";
import test from "node:test";
import { citationProblems, citedPlaces, doublePlaces } from "./check-citations.ts";

const pages = [
  {
    path: "docs/spec/nsm-protocol.md",
    text: "# Protocol\n\n## 2. Server\n\n### 2.1 updatepath\n\n### 2.10 discover\n",
  },
  { path: "docs/spec/original-bugs.md", text: "| id | what |\n|---|---|\n| W19 | see W7 |\n| E1 | x |\n" },
];
const places = citedPlaces(pages, ["docs/decisions/011-who.md", "docs/decisions/README.md"]);
const known = new Set(places);
const problemsOf = (path: string, text: string) => citationProblems({ path, text }, known);

test("citedPlaces() finds headings with a number, first cells with an id, and decisions", () => {
  assert.deepEqual(places, ["nsm-protocol §2", "nsm-protocol §2.1", "nsm-protocol §2.10", "W19", "E1", "decision 011"]);
});

test("doublePlaces() finds what is there twice", () => {
  assert.deepEqual(doublePlaces(places), []);
  assert.match(doublePlaces([...places, "W19"]).join(), /^docs: W19 is there twice/);
});

const leadNowhere = [
  ["a section", "// As nsm-protocol §3.6 says.", "nsm-protocol §3.6"],
  ["the second of a chain", "// nsm-protocol §2.1 and §2.11", "nsm-protocol §2.11"],
  ["one that ends a sentence", "// It is nsm-protocol §2.1.1.", "nsm-protocol §2.1.1"],
  ["a section without its page", "// the policies (§2.1)", "§2.1"],
  ["a page that is none", "// see spec §2.1", "§2.1"],
  ["a bug", "/** Bounded (W19, W20). */", "W20"],
  ["a bug behind code", "limit(); // (E13)", "E13"],
  ["a decision", "// decision 017 says why", "decision 017"],
  ["the second of two decisions", "// docs/decisions/011 and 016", "decision 016"],
] as const;
for (const [what, comment, place] of leadNowhere) {
  test(`citationProblems() finds ${what} that leads nowhere`, () => {
    const [problem = "", ...others] = problemsOf("src/a.ts", `const a = 1;\n${comment}\n`);
    assert.ok(
      problem.startsWith(`src/a.ts:2: ${place} ${place.startsWith("§") ? "has no page" : "leads nowhere"}`),
      problem,
    );
    assert.deepEqual(others, []);
  });
}

test("citationProblems() follows a citation over the end of a line, in each kind of comment and in documents", () => {
  const wrapped = [
    "// as nsm-protocol\n// §2.1 and §2.10, W19 and decision 011",
    "/**\n * as nsm-protocol\n * §2.1,\n * §2.10\n */",
    "\t// nsm-protocol §2.",
  ];
  for (const text of wrapped) assert.deepEqual(problemsOf("src/a.ts", text), [], text);
  assert.deepEqual(problemsOf("docs/a.md", "As nsm-protocol\n§2.1 (W19, E1) and [decision 011](x.md).\n"), []);
  assert.match(problemsOf("docs/a.md", "\nW8\n").join(), /^docs\/a\.md:2: W8 leads/);
});

test("citationProblems() lets a page of the specs leave its own name out", () => {
  assert.deepEqual(problemsOf("docs/spec/nsm-protocol.md", "As in §2.1.\n"), []);
  assert.match(problemsOf("docs/spec/nsm-protocol.md", "As in §9.\n").join(), /nsm-protocol §9 leads nowhere/);
});

test("citationProblems() leaves alone other documents, code, and what only looks like a citation", () => {
  const harmless = [
    "// RFC 8200 §5, RFC 7518 §3.4",
    'const text = "W8 §9";',
    "const F4 = 1;",
    "// %C3%B6, gRFC A6, E1000, 0xB2, B2.x",
  ];
  assert.deepEqual(problemsOf("src/a.ts", harmless.join("\n")), []);
});
