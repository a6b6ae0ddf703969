import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { TestCounts } from "../tools/test-counts.ts";

export interface GoTestOptions {
  /** A Go module. */
  readonly folder: string;
  /** Words before a test program; modules are fetched and programs built outside of it, where the network is. */
  readonly fence: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Only tests whose name holds one; all where there is none. */
  readonly words: readonly string[];
  readonly print: (line: string) => void;
}

/** What `go test -json` prints, a line each: `go doc test2json`. */
export interface GoTestEvent {
  readonly Action: string;
  readonly Package?: string;
  /** Missing when the event is about the package; "Outer/inner" for a part of a test. */
  readonly Test?: string;
  readonly Output?: string;
  readonly Elapsed?: number;
}

/** Longer than the slowest module takes on a busy machine, its first build included; who asks for more rounds waits for them. */
const LIMIT = process.env["INTEROP_ROUNDS"] === undefined ? "15m" : "3h";

/** The arguments of `go` that run a module's tests: only the test programs, not what builds them, run behind the fence. */
export function goTestArguments({ fence, words }: Pick<GoTestOptions, "fence" | "words">): readonly string[] {
  const chosen = words.length > 0 ? ["-run", words.join("|")] : [];
  // The go command splits it as a shell does: single quotes hold a word together.
  const behind = fence.length > 0 ? [`-exec=${fence.map((word) => `'${word}'`).join(" ")}`] : [];
  return ["test", "-json", "-count=1", "-parallel=4", `-timeout=${LIMIT}`, ...behind, ...chosen, "./..."];
}

/** Runs all tests of a module. Logs each, with what it logs: figures of those that passed, everything of those that failed. */
export async function runGoTests({ folder, fence, env, words, print }: GoTestOptions): Promise<TestCounts> {
  const child = spawn("go", goTestArguments({ fence, words }), {
    cwd: folder,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise<string>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("close", (code, signal) => resolve(code === 0 ? "" : `go test ended with ${signal ?? code}`));
  });
  const story = new GoTestStory(print);
  for await (const line of createInterface({ input: child.stdout })) story.hear(line);
  return story.end(await ended);
}

/** Reads the events and counts. */
export class GoTestStory {
  readonly #counts: TestCounts = { passed: 0, failed: 0, skips: [] };
  readonly #output = new Map<string, string[]>();
  readonly #print: (line: string) => void;

  constructor(print: (line: string) => void) {
    this.#print = print;
  }

  hear(line: string): void {
    // What the build says comes as plain text.
    const event: GoTestEvent = line.startsWith("{") ? JSON.parse(line) : { Action: "output", Output: `${line}\n` };
    const [test = ""] = (event.Test ?? "").split("/");
    const output = this.#output.get(test) ?? [];
    this.#output.set(test, output);
    if (event.Output !== undefined) output.push(event.Output);
    if (test !== "" && event.Test === test) this.#count(test, event, output);
  }

  /** The counts; `problem` is why the run itself failed, which is one failure more unless a test has reported it. */
  end(problem: string): TestCounts {
    if (problem === "" || this.#counts.failed > 0) return this.#counts;
    for (const output of this.#output.values()) for (const line of output) this.#print(line.trimEnd());
    this.#print(`✖ ${problem}`);
    return { ...this.#counts, failed: 1 };
  }

  #count(test: string, { Action: action, Elapsed: seconds }: GoTestEvent, output: readonly string[]): void {
    const lines = output.map((line) => line.trimEnd());
    if (action === "pass") {
      this.#counts.passed++;
      this.#print(`✔ ${test} (${seconds} s)`);
      for (const line of lines) if (/^\s+\w+\.go:\d+: /.test(line)) this.#print(`  ${line.replace(/^\s+\S+ /, "")}`);
    } else if (action === "fail") {
      this.#counts.failed++;
      this.#print(`✖ ${test} (${seconds} s)`);
      for (const line of lines) this.#print(`  ${line}`);
    } else if (action === "skip") {
      this.#counts.skips.push({ name: test, why: lines.find((line) => /\.go:\d+: /.test(line)) ?? "no reason given" });
    } else return;
    this.#output.delete(test);
  }
}
