// npm test: the check, and with its unit tests the whole forwarder in the sandbox and what needs a real kernel, as far as this machine can.
// `npm test -- real/netlink sandbox/restart` runs only the files of those two tiers whose path holds one of the words.
import { globSync } from "node:fs";
import { runChecks } from "./check-steps.ts";
import { runFenced } from "./fence.ts";
import { runFuzz } from "./run-fuzz.ts";
import { addCounts, closingLine, type TestCounts } from "./test-counts.ts";
import { chooseFiles, usage } from "./test-words.ts";

const words = process.argv.slice(2);
const print = (line: string) => process.stderr.write(`${line}\n`);
if (words.some((word) => word === "--help" || word === "-h")) {
  process.stdout.write(usage);
  process.exit(0);
}
const chosen = chooseFiles(globSync("test/{sandbox,real}/**/*.test.ts").sort(), words);
if (chosen.kind === "none") {
  print(chosen.why);
  process.exit(1);
}

const { failed, counts: tested } =
  words.length > 0
    ? { failed: [], counts: await runFenced("sandbox and real", chosen.files, print) }
    : await runChecks(print, chosen.files);

// The fuzzers' minute is CI's: a change of a parser plays its own targets (`npm run fuzz -- WORD`).
const fuzzed = words.length === 0 && process.env["CI"] ? await runFuzz(print) : addCounts();

const counts = addCounts(tested, fuzzed, { passed: 0, failed: failed.length, skips: [] });
printSkips(counts);
if (failed.length > 0) print(`Failed beside the tests: ${failed.join(", ")}`);
process.stdout.write(`${closingLine(counts)}\n`);
process.exitCode = counts.failed > 0 ? 1 : 0;

function printSkips({ skips }: TestCounts): void {
  const reasons = Map.groupBy(skips, ({ why }) => why);
  for (const [why, tests] of reasons) {
    print(`skipped, ${why}:`);
    for (const { name } of tests) print(`  ${name}`);
  }
}
