import { spawn } from "node:child_process";
import { addCounts, readClosingLine, type TestCounts } from "./test-counts.ts";

/** A minute, and always from the same seed: what fails then has come with the change. */
const ARGUMENTS = ["test/fuzz/main.ts", "--seconds", "60", "--seed", "1"];

/** Plays every target of `npm run fuzz` for a moment, and counts them. */
export async function runFuzz(print: (line: string) => void): Promise<TestCounts> {
  const startedAt = performance.now();
  const said = await outputOf(ARGUMENTS);
  const found = readClosingLine(said);
  const counts: TestCounts = found ? { ...addCounts(), passed: found.passed, failed: found.failed } : failure;
  const tookMs = Math.round(performance.now() - startedAt);
  print(`${counts.failed === 0 ? "✔" : "✖"} fuzzers: ${counts.passed} (${tookMs} ms)`);
  return counts;
}

/** It ended without a closing line. */
const failure: TestCounts = { passed: 0, failed: 1, skips: [] };

/** What it prints on standard output; what it says of each target goes where ours goes. */
function outputOf(args: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
    child.on("error", (error) => resolve(String(error)));
    child.on("close", () => resolve(output));
  });
}
