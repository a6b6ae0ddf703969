import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { within } from "./waiting.ts";

const LIMIT_MS = 30_000;

/** All that the test program says when every step holds; igbvf's identity among it. */
export const EVERYTHING = ["group", "container", "dma", "device", "config 808610ca", "reset"];

/** What the test program said, one word for each step that held, and how it ended. */
export interface Outcome {
  readonly steps: readonly string[];
  readonly pid: number;
  /** Whether it holds still what it opened. */
  readonly isRunning: boolean;
  /** Ends the program where it still holds what it opened. */
  close(): Promise<void>;
}

/** Starts the test program, or a shell that becomes it; resolves when it has done everything, or has ended. */
export async function runVfioClient(command: string, args: readonly string[]): Promise<Outcome> {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
  const gone = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const steps = await within(LIMIT_MS, "the test program", stepsOf(child, gone));
  return {
    steps,
    pid: child.pid ?? 0,
    get isRunning() {
      return child.exitCode === null && child.signalCode === null;
    },
    async close() {
      child.stdin?.end();
      await within(LIMIT_MS, "the end of the test program", gone);
    },
  };
}

/** Holds a VF open by the node's own files. @throws when it cannot be opened. */
export async function holdVf(of: { readonly group: string; readonly address: string }): Promise<Outcome> {
  const outcome = await runVfioClient("vfio-client", ["/dev/vfio/vfio", `/dev/vfio/${of.group}`, of.address]);
  if (!outcome.isRunning) assert.fail(`it could not be opened: ${outcome.steps.join(", ")}`);
  return outcome;
}

async function stepsOf(child: ChildProcess, gone: Promise<void>): Promise<readonly string[]> {
  const steps: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  assert.ok(child.stdout);
  createInterface({ input: child.stdout }).on("line", (line) => {
    steps.push(line);
    if (line === EVERYTHING.at(-1)) resolve();
  });
  await Promise.race([promise, gone]);
  return steps;
}
