// The words of the field: comments, messages and documents say VF, condition and module, and name who acts. What each stands for is
// in ARCHITECTURE.md.
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

/** Of the names in code. */
const nameWords: readonly Word[] = [
  { not: /^(?:asks?|asked|asking)$/, say: "request, query" },
  { not: /^(?:tells?|told|telling)$/, say: "report, log, notify, publish, print" },
  { not: /^(?:looks?|looked|looking|glance)$/, say: "observe, read, scan" },
  { not: /^(?:standing|stands)$/, say: "established, configured, in force, actual" },
  { not: /^(?:somebody|anybody|strangers?)$/, say: "who acts: the caller, the peer, another process" },
  { not: /^(?:wish|wishes|wished)$/, say: "request, desired" },
  { not: /^lent$/, say: "borrowed" },
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
  const isOfSrc = path.startsWith("src/") && path.endsWith(".ts");
  return [
    ...problemsIn(path, proseIn(path, text), words),
    ...(isOfSrc ? problemsIn(path, commentsOf(text), commentWords) : []),
    ...(isCode(path) ? nameProblems(path, text) : []),
  ];
}

function isCode(path: string): boolean {
  return /\.(?:ts|go)$/.test(path);
}

/** Of a name each word counts: `askSoon` has two. One that is used twice in a line is reported once. */
function nameProblems(path: string, text: string): readonly string[] {
  const lines = codeOf(text).split("\n");
  return lines.flatMap((line, index) =>
    [...new Set(line.match(/[A-Za-z]\w*/g))].flatMap((name) => {
      const parts = name.split(/_|(?<=[a-z\d])(?=[A-Z])/).map((part) => part.toLowerCase());
      const { say } = nameWords.find(({ not }) => parts.some((part) => not.test(part))) ?? {};
      return say === undefined ? [] : [`${path}:${index + 1}: "${name}": say ${say}`];
    }),
  );
}

/** A phrase may be broken over two lines: it is reported where it begins. */
function problemsIn(path: string, prose: string, list: readonly Word[]): readonly string[] {
  return list
    .flatMap(({ not, say }) => {
      const broken = new RegExp(not.source.replaceAll(" ", "\\s"), `${not.flags}g`);
      return [...prose.matchAll(broken)].map(({ 0: found, index }) => ({
        found: found.replace("\n", " "),
        index,
        say,
      }));
    })
    .sort((a, b) => a.index - b.index)
    .map(({ found, index, say }) => `${path}:${prose.slice(0, index).split("\n").length}: "${found}": say ${say}`);
}

/** What is to be read of a file, each line without what leads it, so that one character is between the words of two lines. */
function proseIn(path: string, text: string): string {
  if (path.endsWith(".md")) return text.replace(/\n[ >]+/g, "\n");
  return isCode(path) ? proseOf(text) : hashCommentsOf(text);
}

/** Comments and texts; all else is blank, and lines stay where they are. */
function proseOf(text: string): string {
  return only(text, () => true);
}

function commentsOf(text: string): string {
  return only(text, (token) => token.startsWith("/"));
}

/** What is neither comment nor text nor regular expression. */
function codeOf(text: string): string {
  return text.replace(TOKENS, blank);
}

function only(text: string, isMeant: (prose: string) => boolean): string {
  let prose = "";
  let at = 0;
  for (const { 0: token, index, groups } of text.matchAll(TOKENS)) {
    prose += blank(text.slice(at, index));
    prose += groups?.["prose"] === undefined || !isMeant(token) ? blank(token) : token;
    at = index + token.length;
  }
  return prose.replace(/\n[ \t]*(?:\/\/|\*(?!\/)) ?/g, "\n");
}

/** Of shell and YAML. */
function hashCommentsOf(text: string): string {
  const lines = text.split("\n").map((line) => {
    const [comment = "", lead = ""] = /(^|\s)#.*/.exec(line) ?? [];
    return blank(line.slice(0, line.length - comment.length)) + lead + comment.slice(lead.length);
  });
  return lines.join("\n").replace(/\n[ \t]*# ?/g, "\n");
}

/** Code parts the words around it, as no space does. */
function blank(code: string): string {
  return code.replace(/\S/g, "\0");
}

/** Of every file of ours that is written in these words: docs/spec cites others, and interop/nsm is generated. */
export function allWordProblems(sources: readonly Source[]): readonly string[] {
  const documents = ["*.md", "docs/*.md", "docs/decisions/*.md", "lab/*.md"];
  const others = ["{interop,tools}/**/*.go", "{deploy,interop,lab,tools}/**/*.{sh,yaml,yml}", "Dockerfile", ".ci/*"];
  const exclude = (name: string) => name === "node_modules" || name === "nsm";
  const unparsed = globSync([...documents, ...others], { exclude }).sort();
  const texts = [
    ...sources.filter(({ path }) => !path.startsWith("src/gen/")),
    ...unparsed.map((path) => ({ path, text: readFileSync(path, "utf8") })),
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
