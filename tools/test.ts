// npm test: the check, then the whole forwarder in the sandbox and what needs a real kernel, as far as this machine can.
// `npm test -- real/netlink sandbox/refresh` runs only the files of those two tiers whose path holds one of the words.
import { spawnSync } from "node:child_process";
import { globSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runChecks } from "./check-steps.ts";
import { fence } from "./fence.ts";
import { addCounts, closingLine, type TestCounts } from "./test-files.ts";

const words = process.argv.slice(2);
const tell = (line: string) => process.stderr.write(`${line}\n`);

const check = words.length > 0 ? { failed: [], counts: addCounts() } : await runChecks(tell);
const files = globSync("test/{sandbox,real}/**/*.test.ts").sort();
const chosen = files.filter((file) => words.length === 0 || words.some((word) => file.includes(word)));
const apart = runApart(chosen);

const counts = addCounts(check.counts, apart, { passed: 0, failed: check.failed.length, skips: [] });
tellSkips(counts);
if (check.failed.length > 0) tell(`Failed before any test: ${check.failed.join(", ")}`);
process.stdout.write(`${closingLine(counts)}\n`);
process.exitCode = counts.failed > 0 || (words.length > 0 && chosen.length === 0) ? 1 : 0;

/** Runs the files in network and mount namespaces of their own: whatever a test does wrong, this machine's network stays as it is. */
function runApart(paths: readonly string[]): TestCounts {
  if (paths.length === 0) return addCounts();
  const folder = mkdtempSync(join(tmpdir(), "forwarder-test-"));
  const report = join(folder, "counts.json");
  const startedAt = performance.now();
  try {
    const [command = "", ...args] = [...fence(tell), process.execPath, "tools/test-files.ts", report, ...paths];
    spawnSync(command, args, { stdio: ["ignore", "inherit", "inherit"] });
    const counts = JSON.parse(readFileSync(report, "utf8")) as TestCounts;
    tell(
      `${counts.failed === 0 ? "✔" : "✖"} sandbox and real: ${counts.passed} (${Math.round(performance.now() - startedAt)} ms)`,
    );
    return counts;
  } catch (error) {
    tell(`✖ sandbox and real: the run ended without a report: ${String(error)}`);
    return { passed: 0, failed: 1, skips: [] };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function tellSkips({ skips }: TestCounts): void {
  const reasons = Map.groupBy(skips, ({ why }) => why);
  for (const [why, tests] of reasons) {
    tell(`skipped, ${why}:`);
    for (const { name } of tests) tell(`  ${name}`);
  }
}
