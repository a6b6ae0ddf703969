// Runs test files on Node's test runner and counts. As a program: `test-files.ts REPORT FILE…` writes the counts as JSON to REPORT,
// so that a run inside other namespaces can be counted together with one outside.
import { writeFileSync } from "node:fs";
import { run } from "node:test";
import { pathToFileURL } from "node:url";

/** What became of the tests of one run. */
export interface TestCounts {
  passed: number;
  failed: number;
  /** One for each skipped test: its name and why. */
  skips: { name: string; why: string }[];
}

/** A file that runs longer has left something open or waits for what never comes; its process is ended and counts as failed. */
const FILE_LIMIT_MS = process.env["DLV_LISTEN_FORWARDER"] ? Number.POSITIVE_INFINITY : 240_000; // a person debugs

const leakGuard = new URL("leaks.ts", import.meta.url).href;

/** The few fields of the runner's events that are read here. */
interface TestEvent {
  readonly name: string;
  readonly file?: string | undefined;
  readonly skip?: string | boolean;
  readonly todo?: string | boolean;
  readonly details: { readonly type?: string | undefined; readonly error?: Error };
}

/**
 * Runs the files, two at a time, each in a process of its own. Tells only failures, on standard error. A file that leaves handles
 * open fails and is ended by tools/leaks.ts; the runner's own forceExit lost the reports of one test in ten.
 */
export async function runTestFiles(files: readonly string[]): Promise<TestCounts> {
  const counts: TestCounts = { passed: 0, failed: 0, skips: [] };
  if (files.length === 0) return counts;
  const events = run({
    files: [...files],
    concurrency: 2,
    timeout: FILE_LIMIT_MS,
    execArgv: ["--disable-warning=ExperimentalWarning", "--import", leakGuard],
  });
  events.on("test:pass", (event: TestEvent) => count(event, counts));
  events.on("test:fail", (event: TestEvent) => count(event, counts));
  events.on("test:stderr", ({ message }: { message: string }) => process.stderr.write(message));
  for await (const _ of events); // the listeners above have what they need; this waits for the end
  return counts;
}

/** All counts as one. */
export function addCounts(...all: readonly TestCounts[]): TestCounts {
  return {
    passed: all.reduce((sum, { passed }) => sum + passed, 0),
    failed: all.reduce((sum, { failed }) => sum + failed, 0),
    skips: all.flatMap(({ skips }) => skips),
  };
}

/** `12 passed, 0 failed, 1 skipped`: the line that ends a run; machines read it. */
export function closingLine({ passed, failed, skips }: TestCounts): string {
  return `${passed} passed, ${failed} failed${skips.length > 0 ? `, ${skips.length} skipped` : ""}`;
}

function count(event: TestEvent, counts: TestCounts): void {
  if (event.details.type === "suite" && !event.details.error) return;
  const skip = event.skip ?? event.todo;
  if (skip !== undefined && skip !== false) {
    counts.skips.push({ name: event.name, why: typeof skip === "string" && skip !== "" ? skip : "no reason given" });
  } else if (event.details.error === undefined) {
    counts.passed++;
  } else {
    counts.failed++;
    process.stderr.write(`\n✖ ${event.name}\n  ${event.file ?? ""}\n${describe(event.details.error)}\n`);
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
