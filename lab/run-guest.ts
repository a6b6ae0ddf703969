import { spawn } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type Machine, qemuCommand } from "./qemu.ts";
import { type GuestLine, type GuestResult, readGuestLine, resultOf } from "./report.ts";
import { type GuestPlan, titleOf } from "./topologies.ts";

export interface RunOptions {
  readonly plan: GuestPlan;
  readonly machine: Omit<Machine, "isInteractive">;
  /** The guest's program as the guest sees it: "/project/…/guest.mjs". */
  readonly program: string;
  readonly tell: (line: string) => void;
  readonly signal: AbortSignal;
}

/** Boots a guest, lets it run its scenarios and answers with what it told. A guest that hangs is killed at its time limit. */
export async function runGuest(options: RunOptions): Promise<GuestResult> {
  const { plan, machine, program, tell, signal } = options;
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
  const startedAt = performance.now();
  const limit = AbortSignal.any([signal, AbortSignal.timeout(plan.topology.limitMs)]);
  const lines: GuestLine[] = [];
  const onLine = (line: GuestLine) => {
    lines.push(line);
    if (line.kind === "test") tell(testText(titleOf(plan), line));
  };
  const ended = await runQemu(command, args, { limit, onLine });
  const isDone = lines.at(-1)?.kind === "done";
  const ending = limit.aborted ? whyAborted(signal, plan) : isDone ? undefined : `${ended}${lastWords(out)}`;
  const ms = performance.now() - startedAt;
  return resultOf({ kernel: plan.kernel, topology: plan.topology.name, ms }, plan.scenarios, lines, ending);
}

/** Resolves when QEMU has gone, with what it said. */
function runQemu(
  command: string,
  args: readonly string[],
  { limit, onLine }: { readonly limit: AbortSignal; readonly onLine: (line: GuestLine) => void },
): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    const kill = () => child.kill("SIGKILL");
    limit.addEventListener("abort", kill, { once: true });
    let problem = "";
    child.stderr.on("data", (data: Buffer) => (problem = `${problem}${data}`.slice(-4000)));
    createInterface(child.stdout).on("line", (text) => {
      const line = readGuestLine(text);
      if (line) onLine(line);
    });
    child.on("error", (error) => resolve(error.message));
    child.on("close", (code, signal) => {
      limit.removeEventListener("abort", kill);
      // Each adapter's hub says that it has no way out. That is what it is for.
      const said = problem.split("\n").filter((line) => line !== "" && !line.includes("not connected to host network"));
      resolve([`QEMU ended with ${code ?? signal}`, ...said].join("\n"));
    });
  });
}

function whyAborted(signal: AbortSignal, { topology }: GuestPlan): string {
  return signal.aborted ? "the run was ended" : `it was killed after ${topology.limitMs / 1000} s`;
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
