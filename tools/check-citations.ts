// Comments and documents cite docs/spec by section (nsm-protocol §2.1) and by bug of the original (W19), and decisions by number.
// A citation that leads nowhere is a problem: its reader looks for a text that is not there.
import { globSync, readFileSync } from "node:fs";
import { basename } from "node:path";

/** A text of the project, as it is read. */
export interface CitingText {
  readonly path: string;
  readonly text: string;
}

const SECTION = /^#{2,6} (\d+(?:\.\d+)*)\.? /gm;
const BUG = /^\| ([A-IW]\d{1,2}) \|/gm;

/**
 * Everything that can be cited, each as often as it is there: `nsm-protocol §2.1` for a heading, `W19` for the first cell of a
 * row, `decision 011` for a file.
 */
export function citedPlaces(pages: readonly CitingText[], decisionPaths: readonly string[]): readonly string[] {
  const ofPages = pages.flatMap(({ path, text }) => [
    ...[...text.matchAll(SECTION)].map(([, section]) => `${pageName(path)} §${section}`),
    ...[...text.matchAll(BUG)].map(([, id = ""]) => id),
  ]);
  const ofDecisions = decisionPaths.flatMap((path) => /^\d{3}(?=-)/.exec(basename(path)) ?? []);
  return [...ofPages, ...ofDecisions.map((number) => `decision ${number}`)];
}

/** One sentence for each place that two texts claim. */
export function doublePlaces(places: readonly string[]): readonly string[] {
  const twice = places.filter((place, index) => places.indexOf(place) !== index);
  return [...new Set(twice)].map((place) => `docs: ${place} is there twice: a citation of it is ambiguous`);
}

// A chain of sections needs the document's name once: "nsm-protocol §2.1 and §2.3", "RFC 8200 §5".
const SECTION_SIGN = /§\d+(?:\.\d+)*/g;
const DOCUMENT_BEFORE = /([\w-]+(?: \d+)?) (?:§\d+(?:\.\d+)*(?:, and |, | and | to ))*$/;
const BUG_ID = /(?<![\w.%§-]|gRFC )[A-IW]\d{1,2}(?![\w%-]|\.\w)/g;
const DECISIONS = /\b(?:decisions? |docs\/decisions\/)(\d{3})((?:(?:,| and|, and) \d{3})*)/gi;

const NO_PAGE = " has no page of docs/spec before it, as in nsm-protocol §2.1";
const NOWHERE = " leads nowhere: docs/spec/README.md says what can be cited";

/** One sentence for each citation of the text that leads nowhere. Of code only the comments are read. */
export function citationProblems({ path, text }: CitingText, places: ReadonlySet<string>): readonly string[] {
  const prose = path.endsWith(".md") ? text : commentsOf(text);
  const cited = [
    ...sections(path, prose, places),
    ...[...prose.matchAll(BUG_ID)].map(({ 0: id, index }) => ({ place: id, index })),
    ...[...prose.matchAll(DECISIONS)].flatMap(({ 0: all, index }) =>
      [...all.matchAll(/\d{3}/g)].map(([number]) => ({ place: `decision ${number}`, index })),
    ),
  ];
  return cited
    .filter(({ place }) => !places.has(place))
    .sort((a, b) => a.index - b.index)
    .map(({ place, index }) => `${path}:${lineAt(prose, index)}: ${place}${place.startsWith("§") ? NO_PAGE : NOWHERE}`);
}

function sections(path: string, prose: string, places: ReadonlySet<string>) {
  const pages = new Set([...places].map((place) => place.split(" ", 1)[0]));
  // A page of the specs may leave its own name out.
  const own = path.startsWith("docs/spec/") ? pageName(path) : undefined;
  return [...prose.matchAll(SECTION_SIGN)].flatMap(({ 0: sign, index }) => {
    const before = prose.slice(Math.max(0, index - 200), index).replace(/\s*\n[\s/*]*/g, " ");
    const document = DOCUMENT_BEFORE.exec(before)?.[1] ?? "";
    if (/^RFC \d+$/.test(document)) return [];
    const page = pages.has(document) ? document : own;
    return [{ place: page === undefined ? sign : `${page} ${sign}`, index }];
  });
}

/** The text with everything blank that is not a comment; offsets and lines stay. */
function commentsOf(text: string): string {
  return text
    .split("\n")
    .map((line) => {
      const start = /^\s*\/?\*/.test(line) ? 0 : line.search(/(?:^|\s)(?:\/\/|\/\*)/);
      return start < 0 ? " ".repeat(line.length) : " ".repeat(start) + line.slice(start);
    })
    .join("\n");
}

function pageName(path: string): string {
  return basename(path, ".md");
}

function lineAt(text: string, index: number): number {
  return text.slice(0, index).split("\n").length;
}

/** Of every document and every comment of the project. */
export function allCitationProblems(): readonly string[] {
  const outside = (path: string) => /(^|\/)(node_modules|dist|\.cache)(\/|$)/.test(path);
  const read = (path: string) => ({ path, text: readFileSync(path, "utf8") });
  const places = citedPlaces(globSync("docs/spec/*.md").map(read), globSync("docs/decisions/*.md"));
  const known = new Set(places);
  const texts = globSync("**/*.{md,ts,cjs,mjs,go,c}", { exclude: outside }).sort().map(read);
  return [...doublePlaces(places), ...texts.flatMap((text) => citationProblems(text, known))];
}
