// The checks that read our own text: sizes, comments, words, state. As a program it runs them alone.
import { pathToFileURL } from "node:url";
import { docProblems } from "./check-docs.ts";
import { globalProblems, staleDoors } from "./check-globals.ts";
import { sizeProblems } from "./check-size.ts";
import { staleStates, stateProblems } from "./check-state.ts";
import { allWordProblems } from "./check-words.ts";
import { parseSource, sourcePaths } from "./source.ts";

/** One sentence for each problem in any TypeScript file. */
export function textProblems(): readonly string[] {
  const sources = sourcePaths().map((path) => parseSource(path));
  const each = sources.flatMap((source) => [
    ...sizeProblems(source),
    ...globalProblems(source),
    ...stateProblems(source),
  ]);
  const all = [...staleDoors(sources), ...staleStates(sources), ...docProblems(sources), ...allWordProblems(sources)];
  return [...each, ...all];
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const problems = textProblems();
  for (const problem of problems) process.stderr.write(`${problem}\n`);
  process.exitCode = problems.length > 0 ? 1 : 0;
}
