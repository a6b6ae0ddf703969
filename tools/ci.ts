// What `.ci/run` runs once the machine has what it needs: all stages, their counts added up, and a closing line. CI reads the last line and
// the exit code. `TEST_PROMISES` says what the machine has; where the caller has set it, skips of what it does not name are allowed.
// Words choose stages by name: `tools/ci.ts test demo`.
import { spawn } from "node:child_process";
import { unknownPromises } from "../test/needs.ts";
import { failuresOf, judgeStage, limitOf, type Stage, type StageEnd, stages } from "./ci-stages.ts";

const areSkipsAllowed = process.env["CI_ALLOW_SKIPS"] === "true";
const words = process.argv.slice(2);
const chosen = stages.filter(({ name }) => words.length === 0 || words.includes(name));
const print = (line: string) => process.stdout.write(`${line}\n`);

let passed = 0;
let failed = 0;
let skipped = 0;
const failures: string[] = [];

const unknown = unknownPromises(process.env["TEST_PROMISES"] ?? "");
if (unknown.length > 0) {
  failed++;
  print(`✖ TEST_PROMISES names what no test knows: ${unknown.join(", ")}`);
} else {
  for (const [index, stage] of chosen.entries()) await play(stage, chosen.slice(index + 1));
}
if (failures.length > 0) print(`What failed, again:\n${failures.join("\n")}`);
if (chosen.length === 0) print(`✖ no stage is called ${words.join(", ")}`);
print(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;

async function play(stage: Stage, followers: readonly Stage[]): Promise<void> {
  const startedAt = performance.now();
  const end = await run(stage, limitOf(followers, minutesSinceStart()));
  const result = judgeStage(stage, end, areSkipsAllowed);
  passed += result.passed;
  failed += result.failed;
  skipped += result.skipped;
  for (const problem of result.problems) print(`✖ ${stage.name}: ${problem}`);
  if (result.failed > 0) {
    const found = [...failuresOf(end.log), ...result.problems.map((problem) => `✖ ${problem}`)];
    failures.push(...found.map((failure) => `${stage.name}: ${failure.trimStart()}`));
  }
  const minutes = ((performance.now() - startedAt) / 60_000).toFixed(1);
  print(`CI stage ${stage.name}: ${minutes} of ${stage.budgetMinutes} minutes`);
}

function minutesSinceStart(): number {
  return performance.now() / 60_000;
}

/** Runs the command in a process group of its own, so that its limit ends everything that it started. */
function run(
  { command: [program = "", ...args] }: Stage,
  limitMinutes: number,
): Promise<StageEnd & { readonly log: string }> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], detached: true });
    let output = "";
    let log = "";
    let overLimitMinutes: number | undefined;
    for (const [stream, to] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ] as const) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        to.write(text);
        log += text;
        if (stream === child.stdout) output = (output + text).slice(-10_000);
      });
    }
    const limit = setTimeout(() => {
      overLimitMinutes = limitMinutes;
      process.kill(-(child.pid ?? 0), "SIGKILL");
    }, limitMinutes * 60_000);
    child.on("error", (error) => {
      clearTimeout(limit);
      resolve({ code: 127, overLimitMinutes, output: String(error), log });
    });
    child.on("close", (code) => {
      clearTimeout(limit);
      resolve({ code, overLimitMinutes, output, log });
    });
  });
}
