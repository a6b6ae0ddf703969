import { spawn } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { GuestDisk } from "./guest-disk.ts";
import { patience } from "./patience.ts";
import { rememberedAtStop } from "./power-cut.ts";
import { type Machine, qemuCommand } from "./qemu.ts";
import { type GuestLine, type GuestResult, readGuestLine, resultOf } from "./report.ts";
import { type GuestPlan, restOf, titleOf } from "./topologies.ts";

export interface RunOptions {
  readonly plan: GuestPlan;
  readonly machine: Omit<Machine, "isInteractive">;
  /** The guest's program as the guest sees it: "/project/…/guest.mjs". */
  readonly program: string;
  readonly report: (line: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Boots a guest, lets it run its scenarios and answers with what it reported. A guest that hangs is killed at its time limit; what it
 * did not come to runs in another one, whose folder of results has the scenario's name behind it.
 */
export async function runGuest(options: RunOptions): Promise<GuestResult> {
  const first = await runOnce(options);
  const rest = restOf(options.plan, first.over);
  if (!rest || options.signal.aborted) return first.result;
  const { machine } = options;
  const out = `${machine.shares.out}-${rest.scenarios[0]}`;
  const again = await runGuest({ ...options, plan: rest, machine: { ...machine, shares: { ...machine.shares, out } } });
  const tests = [...first.result.tests, ...again.tests];
  const figures = { ...first.result.figures, ...again.figures };
  return { ...first.result, tests, figures, ms: first.result.ms + again.ms };
}

/** A guest that wants its power cut more often than this cuts it for ever. */
const MOST_BOOTS = 12;
const POLL_MS = 250;

async function runOnce(
  options: RunOptions,
): Promise<{ readonly result: GuestResult; readonly over: readonly string[] }> {
  const { plan, signal } = options;
  const startedAt = performance.now();
  const { lines, said, isOverLimit, out } = await (plan.topology.hasDisk ? bootAgainAndAgain(options) : boot(options));
  const isDone = lines.at(-1)?.kind === "done";
  const wasStopped = signal.aborted || isOverLimit;
  const ending = wasStopped ? whyAborted(signal, plan) : isDone ? undefined : `${said}${lastWords(out)}`;
  const ms = performance.now() - startedAt;
  const over = lines.flatMap((line) => (line.kind === "scenario" ? [line.scenario] : []));
  const guest = { kernel: plan.kernel, topology: plan.topology.name, ms };
  // What another guest comes to is no failure of this one.
  const left = restOf(plan, over)?.scenarios ?? [];
  const planned = signal.aborted ? plan.scenarios : plan.scenarios.filter((scenario) => !left.includes(scenario));
  return { result: resultOf(guest, planned, lines, ending), over };
}

/** One boot, from QEMU's start to its end. */
interface Booted {
  readonly lines: readonly GuestLine[];
  readonly said: string;
  readonly isOverLimit: boolean;
  /** Its folder of results. */
  readonly out: string;
  /** The guest has stopped and waited for its power to be cut: what it needs to know afterwards. */
  readonly remembered: readonly unknown[] | undefined;
}

/** One guest on one disk, whose power is cut when it asks for it; its lines are those of all boots. */
async function bootAgainAndAgain(options: RunOptions): Promise<Booted> {
  const { machine, plan, report } = options;
  const { out } = machine.shares;
  const disk = new GuestDisk(`${out}-disk`);
  try {
    let remembered: readonly unknown[] = [];
    const lines: GuestLine[] = [];
    for (let number = 0; ; number += 1) {
      disk.insert();
      const shares = { ...machine.shares, out: number === 0 ? out : `${out}-boot-${number}` };
      const booted = await boot({
        ...options,
        plan: { ...plan, boot: { number, remembered } },
        machine: { ...machine, shares, disk: disk.arguments },
      });
      lines.push(...booted.lines);
      if (!booted.remembered || number === MOST_BOOTS) return { ...booted, lines };
      const { kept, lost } = disk.cutPower();
      report(`  ${titleOf(plan)}: its power was cut; of ${kept + lost} writes to its disk ${lost} are lost`);
      remembered = booted.remembered;
    }
  } finally {
    disk.remove();
  }
}

async function boot({ plan, machine, program, report, signal }: RunOptions): Promise<Booted> {
  const { out } = machine.shares;
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, "plan.json"), JSON.stringify(plan));
  writeFileSync(
    join(out, "start.sh"),
    `exec /node/node --max-semi-space-size=32 --disable-warning=ExperimentalWarning ${program} >/out/guest.log 2>&1\n`,
  );
  const [command, ...args] = qemuCommand({ ...machine, isInteractive: false });
  writeFileSync(join(out, "qemu.sh"), `${[command, ...args].map(quoted).join(" ")}\n`);
  chmodSync(join(out, "qemu.sh"), 0o755);
  const lines: GuestLine[] = [];
  const onLine = (line: GuestLine) => {
    lines.push(line);
    if (line.kind === "test") report(testText(titleOf(plan), line));
  };
  const hasStopped = new AbortController();
  const polling = setInterval(() => {
    if (machine.disk && rememberedAtStop(out)) hasStopped.abort();
  }, POLL_MS);
  const limitMs = plan.topology.limitMs;
  const run = { limitMs, signal: AbortSignal.any([signal, hasStopped.signal]), onLine };
  const { said, isOverLimit } = await runQemu(command, args, run).finally(() => clearInterval(polling));
  const remembered = hasStopped.signal.aborted ? rememberedAtStop(out) : undefined;
  return { lines, said, isOverLimit, out, remembered };
}

interface QemuRun {
  readonly limitMs: number;
  readonly signal: AbortSignal;
  readonly onLine: (line: GuestLine) => void;
}

/** Resolves when QEMU has gone, with what it said. */
function runQemu(
  command: string,
  args: readonly string[],
  { limitMs, signal, onLine }: QemuRun,
): Promise<{ readonly said: string; readonly isOverLimit: boolean }> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    const kill = () => child.kill("SIGKILL");
    const left = patience(child.pid ?? 0, limitMs);
    const limit = AbortSignal.any([signal, left.signal]);
    limit.addEventListener("abort", kill, { once: true });
    let problem = "";
    child.stderr.on("data", (data: Buffer) => (problem = `${problem}${data}`.slice(-4000)));
    createInterface(child.stdout).on("line", (text) => {
      const line = readGuestLine(text);
      if (line) onLine(line);
    });
    const end = (said: string) => {
      left.stop();
      limit.removeEventListener("abort", kill);
      resolve({ said, isOverLimit: left.signal.aborted });
    };
    child.on("error", (error) => end(error.message));
    child.on("close", (code, signal) => {
      // Each adapter's hub says that it has no way out. That is what it is for.
      const said = problem.split("\n").filter((line) => line !== "" && !line.includes("not connected to host network"));
      end([`QEMU ended with ${code ?? signal}`, ...said].join("\n"));
    });
  });
}

function whyAborted(signal: AbortSignal, { topology }: GuestPlan): string {
  return signal.aborted
    ? "the run was ended"
    : `it was killed after ${topology.limitMs / 1000} s in which it could run`;
}

/** The end of what the guest's console and program have said. */
function lastWords(out: string): string {
  const tails = ["console.log", "guest.log"].map((name) => {
    const path = join(out, name);
    const text = existsSync(path) ? readFileSync(path, "utf8").trim() : "";
    return text === "" ? "" : `\n${name}:\n${text.split("\n").slice(-15).join("\n")}`;
  });
  return tails.join("");
}

function testText(title: string, test: Extract<GuestLine, { kind: "test" }>): string {
  const mark = test.error === undefined ? "✔" : "✖";
  const text = `${mark} ${title}: ${test.scenario}: ${test.name} (${(test.ms / 1000).toFixed(1)} s)`;
  return test.error === undefined ? text : `${text}\n    ${test.error.replaceAll("\n", "\n    ")}`;
}

function quoted(word: string): string {
  return /^[\w./:=,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
