// Names of files and symbols that documents give without a link: each is there, or the document says of which day it is.
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** What a document says of paths in its tables where they are a record. In any other place a path is one of now. */
export const DATED_TABLES = "Paths in the tables are those of that day.";

// `nsm/request/settle.ts`, `rpc/http2/`: from the root of the project, from src, or from the document's own folder.
const FILE = /`((?:[\w.-]+\/)+[\w.-]+\.(?:ts|cjs|mjs))(?::\d+)?`/g;
const FOLDER = /`((?:[\w-]+\/)+)`/g;
const MADE = /^dist\//; // by `npm run build`

/** One sentence for each path in back quotes that is nowhere. @param isThere whether a path of the project exists. */
export function namedPathProblems(
  path: string,
  text: string,
  isThere: (path: string) => boolean = existsSync,
): readonly string[] {
  const isDated = path.startsWith("docs/decisions/") && text.includes(DATED_TABLES);
  const isOurs = (target: string) => ["", "src", dirname(path)].some((folder) => isThere(join(folder, target)));
  return text.split("\n").flatMap((line, index) => {
    if (isDated && line.startsWith("| ")) return [];
    const files = [...line.matchAll(FILE)].map(([, target = ""]) => target);
    const folders = [...line.matchAll(FOLDER)].map(([, target = ""]) => target);
    // What does not begin as a path of ours may be one of Linux or of another project.
    const ours = folders.filter((target) => isOurs(target.slice(0, target.indexOf("/"))));
    return [...files, ...ours]
      .filter((target) => !MADE.test(target) && !isOurs(target))
      .map((target) => `${path}:${index + 1}: ${target} is not there`);
  });
}

/** Code of the program, file by file, without comments. */
export interface Code {
  readonly files: readonly string[];
  readonly words: ReadonlySet<string>;
}

const MEMBER = /`([A-Z]\w+)\.#?(\w+)`/g;
const WORD = /`#?([A-Za-z_]\w*)`/g;

/**
 * One sentence for each symbol in back quotes that the code does not have, and each `Class.member` whose class has no such member. Of a
 * table with a column `here`, only that column: the others have the names of another program.
 */
export function namedSymbolProblems(path: string, text: string, { files, words }: Code): readonly string[] {
  const hasMember = (owner: string, member: string) =>
    files.some((file) => new RegExp(`\\b(?:class|interface) ${owner}\\b[^]*\\b${member}\\b`).test(file));
  return oursOf(text.split("\n")).flatMap((line, index) => {
    const members = [...line.matchAll(MEMBER)]
      .filter(([, owner = "", member = ""]) => !hasMember(owner, member))
      .map(([, owner, member]) => `${owner}.${member}`);
    const symbols = [...line.matchAll(WORD)].map(([, word = ""]) => word).filter((word) => !words.has(word));
    return [...members, ...symbols].map((name) => `${path}:${index + 1}: src has no ${name}`);
  });
}

/** The lines, of which cells of tables that are not ours are left out. */
function oursOf(lines: readonly string[]): readonly string[] {
  let ours: number | undefined;
  return lines.map((line) => {
    if (!line.startsWith("|")) {
      ours = undefined;
      return line;
    }
    const cells = line.split("|").map((cell) => cell.trim());
    const here = cells.findIndex((cell) => cell === "here" || cell === "ours");
    if (here >= 0) ours = here;
    return ours === undefined ? line : (cells[ours] ?? "");
  });
}

/** One sentence for each invariant of ARCHITECTURE.md that names neither a test nor a check that would fail without it. */
export function invariantProblems(path: string, text: string): readonly string[] {
  const from = text.indexOf("\n## Invariants\n");
  if (from < 0) return [`${path}: there is no section "Invariants"`];
  const before = text.slice(0, from).split("\n").length;
  const [section = ""] = text.slice(from + 1).split("\n## ");
  const items: { readonly line: number; text: string }[] = [];
  for (const [index, line] of section.split("\n").entries()) {
    const last = items.at(-1);
    if (line.startsWith("* ")) items.push({ line: before + index + 1, text: line });
    else if (last && line.startsWith("  ")) last.text += line;
  }
  if (items.length === 0) return [`${path}: "Invariants" has none`];
  return items
    .filter((item) => !/`[\w/.-]+\.test\.ts`|`tools\/check-[\w-]+\.ts`|`\.dependency-cruiser\.cjs`/.test(item.text))
    .map((item) => `${path}:${item.line}: this invariant names no test or check that holds it`);
}

/** Of src, without tests, their fakes and generated files. */
export function codeOfSrc(): Code {
  const paths = globSync("src/**/*.ts").filter((path) => !/^src\/gen\/|\/testing\/|\.test\.ts$/.test(path));
  const files = paths.map((path) => readFileSync(path, "utf8").replaceAll(/^\s*(?:\/\/|\*|\/\*\*).*$/gm, ""));
  return { files, words: new Set(files.flatMap((file) => file.match(/\w+/g) ?? [])) };
}
