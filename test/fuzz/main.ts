// npm run fuzz: changed messages of honest peers to every parser that a peer, a pod, kubelet, the kernel or the disk can reach.
// `npm run fuzz -- --seconds 60 jwt netlink` plays the targets whose names hold one of the words; `--seed N NAME` plays a finding again.
import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { closingLine, type TestCounts } from "../../tools/test-counts.ts";
import type { Played } from "./engine.ts";
import type { Growth } from "./growth.ts";
import { type Assignment, Slate } from "./slate.ts";
import { loadTargets } from "./targets/all.ts";

/** An input that takes longer hangs. */
const HANG_MS = 30_000;
/** Of the worker's heap: everything that it plays is small. */
const HEAP_MIB = 512;

const { values, positionals: words } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    seed: { type: "string" },
    executions: { type: "string" },
  },
  allowPositionals: true,
});
const seed = Number(values.seed ?? randomInt(2 ** 30));
const all = (await loadTargets()).map(({ name, says }) => ({ name, says }));
const isExact = (word: string) => all.some(({ name }) => name === word);
const isNamed = (name: string) => words.some((word) => (isExact(word) ? name === word : name.includes(word)));
const chosen = words.length === 0 ? all : all.filter(({ name }) => isNamed(name));
const none = Buffer.alloc(0);
const counts: TestCounts = { passed: 0, failed: 0, skips: [] };
const print = (line: string) => process.stderr.write(`${line}\n`);
if (chosen.length === 0) {
  print(`No target is named so; there are ${all.map(({ name }) => name).join(" ")}`);
  process.exit(1);
}
const msEach = (Number(values.seconds) * 1000) / chosen.length;
print(`seed ${seed}, ${(msEach / 1000).toFixed(1)} s for each of ${chosen.length} targets`);
let total = 0;
let left = chosen.map(({ name }) => name);
while (left.length > 0) left = await playUntilOneHangs(left);
print(`${total} executions`);
process.stdout.write(`${closingLine(counts)}\n`);
process.exit(counts.failed > 0 ? 1 : 0);

type Report =
  | { readonly kind: "begins"; readonly name: string }
  | {
      readonly kind: "ended";
      readonly name: string;
      readonly played: Played;
      readonly growth: readonly Growth[];
      readonly ms: number;
    }
  | { readonly kind: "done" };

/** Answers what is left to be played behind a target that hangs, or took all memory. */
function playUntilOneHangs(names: readonly string[]): Promise<string[]> {
  const memory = Slate.memory();
  const slate = new Slate(memory);
  const executions = values.executions === undefined ? undefined : Number(values.executions);
  const assignment: Assignment = { names, seed, msEach, executions, slate: memory };
  const worker = new Worker(new URL("worker.ts", import.meta.url), {
    workerData: assignment,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
  });
  let name = names[0] ?? "";
  let before = -2;
  return new Promise((resolve) => {
    const over = (rest: string[]) => {
      clearInterval(watch);
      void worker.terminate().then(() => resolve(rest));
    };
    const broken = (problem: string) => {
      failed(name, problem, slate.read());
      over(names.slice(names.indexOf(name) + 1));
    };
    const watch = setInterval(() => {
      const now = slate.read().executions;
      if (now !== 0 && now === before) broken(`hangs: no answer in ${HANG_MS / 1000} s`);
      before = now;
    }, HANG_MS);
    worker.on("error", (error) => broken(`ends the process: ${error.message}`));
    worker.on("message", (report: Report) => {
      if (report.kind === "begins") name = report.name;
      else if (report.kind === "ended") ended(report);
      else over([]);
    });
  });
}

function ended({ name, played, growth, ms }: Report & { kind: "ended" }): void {
  total += played.executions;
  const bad = growth.find(({ isBad }) => isBad);
  for (const { says, isBad } of growth) if (!isBad) print(`  ${name} grows oddly: ${says}`);
  if (played.problem !== undefined) failed(name, played.problem, { ...played, input: Buffer.from(played.input) });
  else if (bad) failed(name, `its time grows with the square of the input: ${bad.says}`, { ...bad, input: none });
  if (played.problem !== undefined || bad) return;
  counts.passed += 1;
  print(`✔ ${name}: ${played.executions} executions, ${played.outcomes} outcomes (${(ms / 1000).toFixed(1)} s)`);
}

function failed(name: string, problem: string, at: { readonly seed: number; readonly input: Buffer }): void {
  counts.failed += 1;
  print(`✖ ${name}: ${problem}`);
  if (at.input.length > 0) print(`    input: ${at.input.toString("base64")}`);
  print(`    again: npm run fuzz -- --seed ${at.seed} ${name}`);
}
