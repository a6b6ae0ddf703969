// Markdown that has gone stale: links, named files and symbols that are not there, and what a stopped merge left behind.
import { existsSync, globSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { codeOfSrc, invariantProblems, namedPathProblems, namedSymbolProblems } from "./check-names.ts";

/** Folders whose files are named in the text by their path. */
const NAMED_FILE = /`((?:src|sandbox|test|lab|bench|interop|tools|deploy|docs|proto)\/[\w./-]+\.\w+)`/g;
const LINK = /\]\((?!\w+:|#)([^)#\s]+)/g;
const MERGE_MARK = /^(?:<{7}|>{7}|={7}$)/;

/** One sentence for each. @param isThere whether a path of the project exists. */
export function proseProblems(
  path: string,
  text: string,
  isThere: (path: string) => boolean = existsSync,
): readonly string[] {
  return text.split("\n").flatMap((line, index) => {
    const links = [...line.matchAll(LINK)].map(([, target = ""]) => join(dirname(path), target));
    const named = [...line.matchAll(NAMED_FILE)].map(([, target = ""]) => target);
    const missing = [...links, ...named].filter((target) => !isThere(target));
    return [
      ...missing.map((target) => `${path}:${index + 1}: ${target} is not there`),
      ...(MERGE_MARK.test(line) ? [`${path}:${index + 1}: the mark of a merge that was not finished`] : []),
    ];
  });
}

// `[file](../src/a.ts) `symbol`, `other``, and `symbol` in [file](../src/a.ts)`; a folder of src in place of the file, too.
const SYMBOLS_BEHIND = /\]\(([^)#\s:]+\.ts|[^)#\s:]*\bsrc\/\w+)\) ((?:`\w+`(?:, )?)+)/g;
const SYMBOL_BEFORE = /`(\w+)` in \[[^\]]*\]\(([^)#\s:]+\.ts|[^)#\s:]*\bsrc\/\w+)\)/g;

/** One sentence for each symbol that a document names with its file and the file does not have. @param read the TypeScript there. */
export function symbolProblems(path: string, text: string, read: (path: string) => string): readonly string[] {
  return text.split("\n").flatMap((line, index) => {
    const behind = [...line.matchAll(SYMBOLS_BEHIND)].flatMap(([, target = "", symbols = ""]) =>
      [...symbols.matchAll(/\w+/g)].map(([symbol]) => ({ symbol, target })),
    );
    const before = [...line.matchAll(SYMBOL_BEFORE)].map(([, symbol = "", target = ""]) => ({ symbol, target }));
    return [...behind, ...before]
      .map(({ symbol, target }) => ({ symbol, target: join(dirname(path), target) }))
      .filter(({ symbol, target }) => !new RegExp(`\\b${symbol}\\b`).test(read(target)))
      .map(({ symbol, target }) => `${path}:${index + 1}: ${target} has no ${symbol}`);
  });
}

const ANSWER = /^\| .*\? \| (.*) \|$/;

/** One sentence for each row of "Where is what" in CONTRIBUTING.md whose answer is not one file that is there. */
export function answerProblems(path: string, text: string, isThere: (path: string) => boolean): readonly string[] {
  const from = text.indexOf("## Where is what");
  const before = text.slice(0, Math.max(0, from)).split("\n").length;
  const [section = ""] = from < 0 ? [] : text.slice(from + 2).split("\n## ");
  const answers = section.split("\n").flatMap((line, index) => {
    const answer = ANSWER.exec(line)?.[1];
    return answer === undefined ? [] : [{ answer, line: before + index }];
  });
  if (answers.length === 0) return [`${path}: the table "Where is what" has no question`];
  return answers
    .filter(({ answer }) => !isThere(/^`(src\/[\w./-]+\.ts)`$/.exec(answer)?.[1] ?? ""))
    .map(({ answer, line }) => `${path}:${line}: ${answer} is not one file of src that is there`);
}

/** A file, or all TypeScript of a folder; empty when there is neither, which is reported as a link that leads nowhere. */
function typescriptAt(path: string): string {
  if (!existsSync(path)) return "";
  const files = statSync(path).isDirectory() ? globSync(`${path}/**/*.ts`) : [path];
  return files.map((file) => readFileSync(file, "utf8")).join("\n");
}

/** Of every Markdown file of the project. */
export function allProseProblems(): readonly string[] {
  const paths = globSync("**/*.md", { exclude: (path) => /(^|\/)(node_modules|dist|\.cache)(\/|$)/.test(path) });
  const answers = answerProblems("CONTRIBUTING.md", readFileSync("CONTRIBUTING.md", "utf8"), existsSync);
  const others = paths.sort().flatMap((path) => {
    const text = readFileSync(path, "utf8");
    return [...proseProblems(path, text), ...symbolProblems(path, text, typescriptAt)];
  });
  return [...answers, ...others, ...nameProblems(paths)];
}

/** Documents whose symbols in back quotes are of src, and not also of another program's log, kernel or wire. */
const OF_OUR_CODE = ["ARCHITECTURE.md", "docs/for-nsm-engineers.md"];

function nameProblems(paths: readonly string[]): readonly string[] {
  const code = codeOfSrc();
  return [
    ...paths.flatMap((path) => namedPathProblems(path, readFileSync(path, "utf8"))),
    ...OF_OUR_CODE.flatMap((path) => namedSymbolProblems(path, readFileSync(path, "utf8"), code)),
    ...invariantProblems("ARCHITECTURE.md", readFileSync("ARCHITECTURE.md", "utf8")),
  ];
}
