// The words of the field: comments, messages and documents say VF, condition and module, and name who acts. What each stands for is
// in ARCHITECTURE.md. Of code only comments and texts are read: identifiers follow by review.
import { globSync, readFileSync } from "node:fs";
import type { Source } from "./source.ts";

interface Word {
  readonly not: RegExp;
  readonly say: string;
}

const words: readonly Word[] = [
  {
    not: /\b(?:no|some|any|every)body\b|\bwhoever\b/i,
    say: "who acts: the caller, the peer, the client, another process",
  },
  { not: /\bpeople\b/i, say: "the operator" },
  { not: /\bstrangers?\b/i, say: "another peer, an unknown device" },
  { not: /\banew\b/i, say: "again" },
  { not: /\bunless told\b/i, say: "by default" },
  { not: /\b(?:go|goes|going|went) on\b/i, say: "continue" },
  { not: /\bearlier process(?:es)?\b/i, say: "a previous instance" },
  { not: /\brooms\b|\b(?:a|each|every|the|this|own|of) room\b/i, say: "module" },
  { not: /\bbook\b/i, say: "inventory" },
  { not: /\bailments?\b/i, say: "condition" },
  { not: /\bwish(?:es|ed)?\b/i, say: "request" },
  { not: /\blent\b/i, say: "borrowed" },
  { not: /\bspoilt\b/i, say: "damaged, drifted" },
  { not: /\b(?:comes?|came|come|brings?|bring|brought|way|is|are|was) home\b/i, say: "restored to the host" },
  {
    not: /\b(?:is|are|was|were|be|been|being|not|and|it) told\b(?! (?:apart|from))|\bTold\b|\btells? of\b/,
    say: "report, log, notify, publish: by its way",
  },
];

/** Of the comments of `src/` only: elsewhere these are plain English. */
const commentWords: readonly Word[] = [
  { not: /\b(?:is|are|was|were|be|been|being) asked\b|\basks? (?:for|the|whether|what)\b/i, say: "query, request" },
  { not: /\blook(?:s|ed|ing)? (?:at|again|anew)\b|\b(?:a|the|each|next|last) look\b/i, say: "observe, read, scan" },
  { not: /\b(?:as|is|are|was|what) wanted\b/i, say: "desired, needed" },
  { not: /\bstands? for\b|\bstanding\b/i, say: "is assigned to, established, in force, actual" },
];

/** Where a word may stay, each with the reason. A place that has none of these words is reported. */
const allowed: Readonly<Record<string, string>> = {
  "CHANGELOG.md": "has the old names beside the new ones",
  "tools/check-words.test.ts": "tries the words",
};

// A regular expression of JavaScript is told from a division by what is before it.
const TOKENS =
  /(?<prose>\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|(?<=[(,=:[!&|?{};\n ])\/(?![*/ ])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+\/[a-z]*/g;

/** One sentence for each word of the text that is not the field's. @param text of Markdown all of it counts. */
export function wordProblems(path: string, text: string): readonly string[] {
  const isDocument = path.endsWith(".md");
  const found = problemsIn(path, isDocument ? text : proseOf(text), words);
  return path.startsWith("src/") && !isDocument
    ? [...found, ...problemsIn(path, commentsOf(text), commentWords)]
    : found;
}

function problemsIn(path: string, prose: string, list: readonly Word[]): readonly string[] {
  return prose.split("\n").flatMap((line, index) =>
    list.flatMap(({ not, say }) => {
      const [found] = not.exec(line) ?? [];
      return found === undefined ? [] : [`${path}:${index + 1}: "${found}": say ${say}`];
    }),
  );
}

/** Comments and texts; all else is blank, and lines stay where they are. */
function proseOf(text: string): string {
  return only(text, () => true);
}

function commentsOf(text: string): string {
  return only(text, (token) => token.startsWith("/"));
}

function only(text: string, isMeant: (prose: string) => boolean): string {
  let prose = "";
  let at = 0;
  for (const { 0: token, index, groups } of text.matchAll(TOKENS)) {
    prose += text.slice(at, index).replace(/[^\n]/g, " ");
    prose += groups?.["prose"] === undefined || !isMeant(token) ? token.replace(/[^\n]/g, " ") : token;
    at = index + token.length;
  }
  return prose;
}

/** Of every file of ours that is written in these words: docs/spec cites others. */
export function allWordProblems(sources: readonly Source[]): readonly string[] {
  const documents = globSync(["*.md", "docs/*.md", "docs/decisions/*.md", "lab/*.md"]).sort();
  const texts = [
    ...sources.filter(({ path }) => !path.startsWith("src/gen/")),
    ...documents.map((path) => ({ path, text: readFileSync(path, "utf8") })),
  ];
  const found = texts.map(({ path, text }) => ({ path, problems: wordProblems(path, text) }));
  const stale = Object.keys(allowed).filter(
    (path) => !found.some((one) => one.path === path && one.problems.length > 0),
  );
  return [
    ...found.flatMap(({ path, problems }) => (Object.hasOwn(allowed, path) ? [] : problems)),
    ...stale.map((path) => `tools/check-words.ts: ${path} may have such words and has none`),
  ];
}
