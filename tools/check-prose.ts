// Markdown that has gone stale: links and named files that are not there, and what a stopped merge left behind.
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

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

/** Of every Markdown file of the project. */
export function allProseProblems(): readonly string[] {
  const paths = globSync("**/*.md", { exclude: (path) => /(^|\/)(node_modules|dist|\.cache)(\/|$)/.test(path) });
  return paths.sort().flatMap((path) => proseProblems(path, readFileSync(path, "utf8")));
}
