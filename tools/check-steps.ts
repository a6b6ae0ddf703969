// The steps of `npm run check`: each is a program of its own or a function of this project, and finds problems or none.
import { spawn } from "node:child_process";
import { globSync } from "node:fs";
import { allCitationProblems } from "./check-citations.ts";
import { importProblems } from "./check-imports.ts";
import { allProseProblems } from "./check-prose.ts";
import { textProblems } from "./check-text.ts";
import { runFenced } from "./fence.ts";
import { readmeProblem } from "./readme.ts";
import type { TestCounts } from "./test-counts.ts";

/** One step: its name and what it found, as text for the operator; undefined when all is well. */
export interface Step {
  readonly name: string;
  readonly find: () => Promise<string | undefined>;
}

/** All steps but the unit tests. */
export const steps: readonly Step[] = [
  { name: "format and lint", find: () => runProgram("biome", ["check", "--error-on-warnings", "--colors=force", "."]) },
  { name: "types", find: () => runProgram("tsc", ["--pretty"]) },
  { name: "types of the page", find: () => runProgram("tsc", ["--pretty", "-p", "src/admin/page"]) },
  { name: "generated code", find: () => runProgram(process.execPath, ["tools/gen.ts", "--check"]) },
  { name: "README", find: async () => readmeProblem() },
  { name: "imports", find: async () => lines(Object.values(await importProblems()).flat()) },
  { name: "sizes, comments, words", find: async () => lines(textProblems()) },
  { name: "documents", find: async () => lines([...allProseProblems(), ...allCitationProblems()]) },
];

/** Tests that need no privilege: all beside the code, and those of the gates. */
export function unitTestFiles(): readonly string[] {
  return globSync(["{src,tools,sandbox,bench,lab,interop}/**/*.test.ts", "test/*.test.ts"]).sort();
}

/**
 * Runs the steps one after the other and the unit tests beside them, reporting each as it ends. Returns the names of failed steps and
 * the counts.
 * @param others tests to be run with them: with those of both kinds there is always one that does not wait
 */
export async function runChecks(
  print: (line: string) => void,
  others: readonly string[] = [],
): Promise<{ failed: readonly string[]; counts: TestCounts }> {
  const failed: string[] = [];
  const work = async () => {
    for (const step of steps) {
      const startedAt = performance.now();
      const found = await step.find().catch((error: unknown) => `could not run: ${String(error)}`);
      print(`${found === undefined ? "✔" : "✖"} ${step.name} (${Math.round(performance.now() - startedAt)} ms)`);
      if (found === undefined) continue;
      failed.push(step.name);
      print(found);
    }
  };
  const title = others.length > 0 ? "unit, sandbox and real" : "unit tests";
  const [counts] = await Promise.all([runFenced(title, [...unitTestFiles(), ...others], print), work()]);
  return { failed, counts };
}

function lines(problems: readonly string[]): string | undefined {
  return problems.length === 0 ? undefined : problems.join("\n");
}

/** What the program printed when it failed. */
function runProgram(command: string, args: readonly string[]): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data: Buffer) => (output += data));
    child.on("error", reject);
    child.on("close", (code) => resolve(code === 0 ? undefined : `${output}${command} ended with ${code}`));
  });
}
