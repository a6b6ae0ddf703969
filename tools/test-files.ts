// Runs test files on Node's test runner and counts. As a program: `test-files.ts REPORT FILE…` writes the counts as JSON to REPORT,
// so that a run inside other namespaces can be counted together with one outside.
import { writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join, relative, resolve } from "node:path";
import { run } from "node:test";
import { pathToFileURL } from "node:url";
import { printingCosts } from "./test-costs.ts";
import { addCounts, type TestCounts } from "./test-counts.ts";
import { groupsOf, keepTestTimes, longestFirst, readTestTimes } from "./test-order.ts";

const root = join(import.meta.dirname, "..");

/** A file that runs longer has left something open or waits for what never comes; its process is ended and counts as failed. */
const FILE_LIMIT_MS = Number(process.env["TEST_FILE_LIMIT_MS"] ?? 600_000);

/** A test that takes longer waits for what never comes: it fails by its name, and those behind it have their turn. A busy machine takes a minute. */
const TEST_LIMIT_MS = Number(process.env["TEST_LIMIT_MS"] ?? 300_000);

/** Files at a time: with three on two processors more than a third of the time was spent waiting, for most files wait for peers. */
const WORKERS = availableParallelism() * 2 + 1;

const leakGuard = new URL("leak-guard.ts", import.meta.url).href;

/** The process of files that share one; it looks for leaks after each. */
const GROUP = join(root, "tools", "test-group.ts");

/** The few fields of the runner's events that are read here. */
interface TestEvent {
  readonly name: string;
  /** Where the call stands that made the test: a helper's file for a test that a helper makes. */
  readonly file?: string | undefined;
  readonly skip?: string | boolean;
  readonly todo?: string | boolean;
  readonly nesting: number;
  readonly details: {
    readonly type?: string | undefined;
    readonly error?: Error & { readonly failureType?: string };
    readonly duration_ms?: number;
  };
  /** Of a summary. */
  readonly counts: { readonly tests: number };
}

/**
 * Runs the files, some at a time and the longest first, those of a module of `src/` in one process, each other one in its own. Prints
 * only failures, on standard error. A file that leaves handles open fails and is ended by tools/leak-guard.ts; the runner's own
 * forceExit lost the reports of one test in ten.
 */
export async function runTestFiles(files: readonly string[]): Promise<TestCounts> {
  // Node keeps there what it has compiled and stripped of types: a third of the time of a short file's process.
  process.env["NODE_COMPILE_CACHE"] ??= join(root, "node_modules", ".cache", "compiled");
  const waiting = [...longestFirst(groupsOf(files), readTestTimes())];
  const counts: TestCounts[] = [];
  const times: Record<string, number> = {};
  const work = async () => {
    for (let group = waiting.shift(); group !== undefined; group = waiting.shift()) {
      const [file = "", ...others] = group;
      const startedAt = performance.now();
      counts.push(others.length > 0 ? await runTestGroup(group, times) : await runTestFile(file));
      if (others.length === 0) times[file] = Math.round(performance.now() - startedAt);
    }
  };
  await printingCosts(
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
  let isLogged = false;
  const isLate = await runProcess(path, [], (name, event) => {
    // The process says so itself, as the last thing: process.exit() in a test leaves it out.
    if (name === "test:summary") isLogged ||= event.file === path && event.counts.tests > 0;
    else if (name !== "test:start") countTest(event, relative(root, path), counts);
  });
  if (isLate || (!isLogged && counts.failed === 0)) countUndone(path, isLate, counts);
  return counts;
}

/** The same for files that share a process (tools/test-group.ts), in which each is a suite. Notes how long each took. */
async function runTestGroup(files: readonly string[], times: Record<string, number>): Promise<TestCounts> {
  const paths = new Map(files.map((file) => [resolve(file), file]));
  const all: TestCounts[] = [];
  let counts: TestCounts = { passed: 0, failed: 0, skips: [] };
  let now = "";
  const isLate = await runProcess(GROUP, [...paths.keys()], (name, event) => {
    if (name === "test:summary") return;
    const isFile = event.nesting === 0 && paths.has(event.name);
    if (name === "test:start") {
      if (isFile) now = event.name;
      return;
    }
    if (!isFile || event.details.error?.failureType !== "subtestsFailed") countTest(event, relative(root, now), counts);
    if (!isFile) return;
    if (counts.passed + counts.failed + counts.skips.length === 0) countUndone(event.name, false, counts);
    times[paths.get(event.name) ?? ""] = Math.round(event.details.duration_ms ?? 0);
    paths.delete(event.name);
    all.push(counts);
    counts = { passed: 0, failed: 0, skips: [] };
  });
  for (const path of paths.keys()) countUndone(path, isLate, counts);
  return addCounts(...all, counts);
}

function countUndone(path: string, isLate: boolean, counts: TestCounts): void {
  counts.failed++;
  const late = `it was not done after ${FILE_LIMIT_MS / 1000} s`;
  const why = isLate ? late : "it has no tests, or its process ended before they were done";
  process.stderr.write(`\n✖ ${relative(root, path)}\n  ${why}\n`);
}

/** Reports each event of a process with that test file; resolves with whether it came to its limit. */
async function runProcess(
  path: string,
  argv: readonly string[],
  record: (name: "test:start" | "test:end" | "test:summary", event: TestEvent) => void,
): Promise<boolean> {
  // The runner's own timeout is one for each test: two that hang would take twice as long.
  const limit = process.env["DLV_LISTEN_FORWARDER"] ? undefined : AbortSignal.timeout(FILE_LIMIT_MS); // a developer debugs
  const end = (event: TestEvent) => {
    // The process as a test, where it reported no other, or was ended.
    if (event.name === path && (limit?.aborted || !event.details.error)) return;
    record("test:end", event);
  };
  const events = run({
    files: [path],
    argv: [...argv],
    ...(limit && { signal: limit }),
    execArgv: [
      "--disable-warning=ExperimentalWarning",
      ...(path === GROUP ? (limit ? [`--test-timeout=${TEST_LIMIT_MS}`] : []) : ["--import", leakGuard]),
    ],
  });
  events.on("test:start", (event) => record("test:start", event as never));
  events.on("test:pass", end as never);
  events.on("test:fail", end as never);
  events.on("test:stderr", ({ message }: { message: string }) => process.stderr.write(message));
  events.on("test:summary", (event) => record("test:summary", event as never));
  for await (const _ of events); // the listeners above have what they need; this waits for the end
  return limit?.aborted ?? false;
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
  const shown = cause ?? error;
  const { exitCode, signal } = error as { exitCode?: number | null; signal?: string | null };
  if (exitCode !== undefined) return `  the process of this file ended with ${signal ?? `code ${exitCode}`}`;
  const stack = shown.stack ?? "";
  return `${stack.includes(shown.message) ? "" : `${shown.message}\n`}${stack || String(error.cause)}`.replace(
    /^/gm,
    "  ",
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [report = "", ...files] = process.argv.slice(2);
  writeFileSync(report, JSON.stringify(await runTestFiles(files)));
  process.exit(0);
}
