// npm run hostile: attackers in processes of their own against the forwarder's process in a memory cgroup. A hostile pod harms itself only.
// `npm run hostile -- idle longTexts` plays only the attacks whose name or sentence holds one of the words, under each limit.
import { join } from "node:path";
import { enterOwnNamespaces } from "../../sandbox/demo/namespaces.ts";
import { bundleProgram } from "../../tools/bundle-program.ts";
import { closingLine, type TestCounts } from "../../tools/test-counts.ts";
import { has, promisedOf } from "../needs.ts";
import type { Way } from "./attacker/target.ts";
import { type Attack, attacks } from "./attacks.ts";
import { HOSTILE_NEEDS, HostileNode } from "./hostile-node.ts";
import { MIB, memoryHierarchy, removeLeftCgroups } from "./memory-cgroup.ts";
import { type Outcome, play } from "./play.ts";
import { type Row, tableOf } from "./table.ts";

/** What the pod may be given: the manifests say 256, under which all attacks are played; those that are after memory under each. */
const LIMITS_MIB = [256, 128, 96] as const;

/** What some container runtimes give: RLIMIT_NOFILE. Attacks that are after descriptors are played with it, too. */
const FEW_FILES = 1_024;

const words = process.argv.slice(2);
const print = (line: string) => process.stderr.write(`${line}\n`);
const counts: TestCounts = { passed: 0, failed: 0, skips: [] };
const rows: Row[] = [];

const missing = HOSTILE_NEEDS.filter((need) => !has(need));
if (missing.length > 0) {
  const isPromised = promisedOf(missing).length > 0;
  const why = `needs ${missing.join(", ")}`;
  print(`${isPromised ? "✖" : "skipped:"} the hostile tier ${why}, and this machine has it not`);
  if (isPromised) counts.failed += 1;
  else counts.skips.push({ name: "hostile", why });
  end();
}
const privileges = await enterOwnNamespaces(process.argv.slice(1), { isPageWanted: false });
if (privileges.kind === "handed-on") process.exit(privileges.exitCode);

const memory = memoryHierarchy();
print(`memory is limited by cgroups of version ${memory.version.number}, in ${memory.root}`);
removeLeftCgroups(memory);
const program = await bundleProgram(join(import.meta.dirname, "..", ".."), "sandbox/process/forwarder-process.ts");
for (const mib of LIMITS_MIB) await playAll({ mib }, chosen(mib));
const afterFiles = chosen(LIMITS_MIB[0]).filter(({ attack }) => attack.takesFiles);
await playAll({ mib: LIMITS_MIB[0], openFiles: FEW_FILES }, afterFiles);
for (const line of tableOf(rows)) process.stdout.write(`${line}\n`);
end();

function end(): never {
  process.stdout.write(`${closingLine(counts)}\n`);
  process.exit(counts.failed > 0 ? 1 : 0);
}

function chosen(mib: number): readonly { readonly attack: Attack; readonly way: Way }[] {
  const isNamed = ({ name, says }: Attack) => words.some((word) => `${name} ${says}`.includes(word));
  const isPlayed = (attack: Attack) =>
    words.length > 0 ? isNamed(attack) : mib === LIMITS_MIB[0] || attack.takesMemory === true;
  // What the manager sends on takes no more memory than what comes directly.
  const ways = ({ ways: all }: Attack) => (mib === LIMITS_MIB[0] ? all : all.slice(0, 1));
  return attacks.filter(isPlayed).flatMap((attack) => ways(attack).map((way) => ({ attack, way })));
}

/** What the forwarder's process is given. */
interface Given {
  readonly mib: number;
  readonly openFiles?: number;
}

/** One forwarder for all, which has to outlive them; a new one only after an attack that did harm. */
async function playAll(given: Given, some: readonly { readonly attack: Attack; readonly way: Way }[]): Promise<void> {
  if (some.length === 0) return;
  const open = async () => await HostileNode.open(given.mib, program, given.openFiles);
  let node = await open();
  try {
    for (const { attack, way } of some) {
      if (await playOne(node, given, attack, way)) continue;
      await node.close();
      node = await open();
    }
  } finally {
    await node.close();
  }
}

async function playOne(node: HostileNode, { mib, openFiles }: Given, attack: Attack, way: Way): Promise<boolean> {
  const startedAt = performance.now();
  const outcome = await play(node, attack, way).catch((error: unknown) => error as Error);
  const problems = outcome instanceof Error ? [outcome.stack ?? outcome.message] : outcome.problems;
  const isKnown = (problem: string) => attack.knownProblem?.test(problem) === true;
  const fresh = problems.filter((problem) => !isKnown(problem));
  counts[fresh.length === 0 ? "passed" : "failed"] += 1;
  const tookS = ((performance.now() - startedAt) / 1000).toFixed(1);
  const files = openFiles === undefined ? "" : `${openFiles} descriptors, `;
  print(`${fresh.length === 0 ? "✔" : "✖"} ${mib} MiB, ${files}${way}: a peer ${attack.says} (${tookS} s)`);
  for (const problem of problems) print(`    ${isKnown(problem) ? "known: " : "✖ "}${problem.slice(0, 1_000)}`);
  if (fresh.length > 0) print(node.log.slice(-2_000));
  if (!(outcome instanceof Error)) {
    if (process.env["HOSTILE_SAYS"]) sayMore(outcome);
    rows.push({ mib, way: openFiles === undefined ? way : `${way}, ${openFiles} fds`, attack: attack.says, outcome });
  }
  return problems.length === 0;
}

/** For who looks at one attack. */
function sayMore({ seen, retries, most, memory }: Outcome): void {
  print(`    the attacker: ${seen.slice(0, 300)}`);
  print(`    ${JSON.stringify(most)}, at most ${Math.round(memory.cgroupBytes / MIB)} MiB in the cgroup`);
  for (const retry of retries.slice(0, 4)) print(`    tried again: ${retry.slice(0, 400)}`);
}
