// The README's table of variables is printed from src/config.ts, so that the two cannot differ.
import { readFileSync, writeFileSync } from "node:fs";
import { configMarkdown } from "../src/config.ts";

const START = "<!-- variables: written by npm run gen from src/config.ts -->\n";
const END = "<!-- end of variables -->\n";

/** The README with the table as it should be. */
export function withTable(readme: string, table: string): string {
  const [start, end] = [readme.indexOf(START), readme.indexOf(END)];
  if (start < 0 || end < start) throw new Error(`README.md has no lines "${START.trim()}" and "${END.trim()}"`);
  return `${readme.slice(0, start + START.length)}\n${table}\n${readme.slice(end)}`;
}

/** What is wrong with the README, if anything. */
export function readmeProblem(): string | undefined {
  const readme = readFileSync("README.md", "utf8");
  return withTable(readme, configMarkdown()) === readme
    ? undefined
    : "README.md: the table of variables is not what src/config.ts gives. Run npm run gen and commit";
}

/** Writes the table into the README. */
export function writeReadme(): void {
  writeFileSync("README.md", withTable(readFileSync("README.md", "utf8"), configMarkdown()));
}
