// Runs test files on Node's test runner and counts. As a program: `test-files.ts REPORT FILE…` writes the counts as JSON to REPORT,
// so that a run inside other namespaces can be counted together with one outside.
import { writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join, relative, resolve } from "node:path";
import { run } from "node:test";
import { pathToFileURL } from "node:url";
import { tellingCosts } from "./test-costs.ts";
import { addCounts, type TestCounts } from "./test-counts.ts";
import { keepTestTimes, longestFirst, readTestTimes } from "./test-order.ts";

const root = join(import.meta.dirname, "..");

/** A file that runs longer has left something open or waits for what never comes; its process is ended and counts as failed. */
const FILE_LIMIT_MS = Number(process.env["TEST_FILE_LIMIT_MS"] ?? 600_000);

/** Files at a time: one more than there are processors, for most files wait half of their time. */
const WORKERS = availableParallelism() + 1;

const leakGuard = new URL("leaks.ts", import.meta.url).href;

/** The few fields of the runner's events that are read here. */
interface TestEvent {
  readonly name: string;
  /** Where the call stands that made the test: a helper's file for a test that a helper makes. */
  readonly file?: string | undefined;
  readonly skip?: string | boolean;
  readonly todo?: string | boolean;
  readonly details: { readonly type?: string | undefined; readonly error?: Error };
}

/**
 * Runs the files, some at a time and the longest first, each in a process of its own. Prints only failures, on standard error. A file
 * that leaves handles open fails and is ended by tools/leaks.ts; the runner's own forceExit lost the reports of one test in ten.
 */
export async function runTestFiles(files: readonly string[]): Promise<TestCounts> {
  // Node keeps there what it has compiled and stripped of types: a third of the time of a short file's process.
  process.env["NODE_COMPILE_CACHE"] ??= join(root, "node_modules", ".cache", "compiled");
  const waiting = [...longestFirst(files, readTestTimes())];
  const counts: TestCounts[] = [];
  const times: Record<string, number> = {};
  const work = async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const startedAt = performance.now();
      counts.push(await runTestFile(file));
      times[file] = Math.round(performance.now() - startedAt);
    }
  };
  await tellingCosts(
    (line) => process.stderr.write(`${line}\n`),
    () => Promise.all(Array.from({ length: WORKERS }, work)),
  );
  keepTestTimes(times);
  return addCounts(...counts);
}

/** A file whose process ends before its tests are done, or that has none, fails: Node itself reports both as one test that passed. */
async function runTestFile(file: string): Promise<TestCounts> {
  const path = resolve(file);
  const counts: TestCounts = { passed: 0, failed: 0, skips: [] };
  let isTold = false;
  // The runner's own timeout is one for each test: two that hang would take twice as long.
  const limit = process.env["DLV_LISTEN_FORWARDER"] ? undefined : AbortSignal.timeout(FILE_LIMIT_MS); // an operator debugs
  const count = (event: TestEvent) => {
    // The process as a test, where it told of no other, or was ended.
    if (event.name === path && (limit?.aborted || !event.details.error)) return;
    countTest(event, relative(root, path), counts);
  };
  const events = run({
    files: [path],
    ...(limit && { signal: limit }),
    execArgv: ["--disable-warning=ExperimentalWarning", "--import", leakGuard],
  });
  events.on("test:pass", count);
  events.on("test:fail", count);
  events.on("test:stderr", ({ message }: { message: string }) => process.stderr.write(message));
  // The process says so itself, as the last thing: process.exit() in a test leaves it out.
  events.on("test:summary", ({ file: of, counts }) => {
    if (of === path && counts.tests > 0) isTold = true;
  });
  for await (const _ of events); // the listeners above have what they need; this waits for the end
  if (limit?.aborted || (!isTold && counts.failed === 0)) {
    counts.failed++;
    const late = `it was not done after ${FILE_LIMIT_MS / 1000} s`;
    const why = limit?.aborted ? late : "it has no tests, or its process ended before they were done";
    process.stderr.write(`\n✖ ${relative(root, path)}\n  ${why}\n`);
  }
  return counts;
}

function countTest(event: TestEvent, file: string, counts: TestCounts): void {
  if (event.details.type === "suite" && !event.details.error) return;
  const skip = event.skip ?? event.todo;
  if (skip !== undefined && skip !== false) {
    counts.skips.push({ name: event.name, why: typeof skip === "string" && skip !== "" ? skip : "no reason given" });
  } else if (event.details.error === undefined) {
    counts.passed++;
  } else {
    counts.failed++;
    const where = event.file === undefined || resolve(event.file) === resolve(root, file) ? "" : ` (${event.file})`;
    process.stderr.write(`\n✖ ${event.name}\n  ${file}${where}\n${describe(event.details.error)}\n`);
  }
}

function describe(error: Error): string {
  const cause = error.cause instanceof Error ? error.cause : undefined;
  const told = cause ?? error;
  const { exitCode, signal } = error as { exitCode?: number | null; signal?: string | null };
  if (exitCode !== undefined) return `  the process of this file ended with ${signal ?? `code ${exitCode}`}`;
  const stack = told.stack ?? "";
  return `${stack.includes(told.message) ? "" : `${told.message}\n`}${stack || String(error.cause)}`.replace(
    /^/gm,
    "  ",
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [report = "", ...files] = process.argv.slice(2);
  writeFileSync(report, JSON.stringify(await runTestFiles(files)));
  process.exit(0);
}
