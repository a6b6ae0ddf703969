// What test files cost, in seconds of CPU: on a machine that does other work too, the time that they take says nothing.
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Where each file's process writes what it took; set for those that are to. */
const NOTES = "TEST_COST_NOTES";
/** The kernel counts in hundredths of a second, whatever its own clock (USER_HZ, proc(5)). */
const MS_PER_TICK = 10;

/** What one file took, in ms of CPU. */
export interface Cost {
  readonly file: string;
  readonly ownMs: number;
  /** Of the processes that it has started and waited for. */
  readonly childrenMs: number;
}

/** Reads utime, stime, cutime and cstime of a /proc/PID/stat; the command before them may hold spaces and brackets. */
export function readCost(stat: string): Omit<Cost, "file"> {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [user = 0, system = 0, childUser = 0, childSystem = 0] = fields.slice(11, 15).map(Number);
  return { ownMs: (user + system) * MS_PER_TICK, childrenMs: (childUser + childSystem) * MS_PER_TICK };
}

/**
 * Notes what each file of this process takes, if that is wanted: at its end by `done`, and the rest at the end of the process.
 * @param rest what stands for what no file has taken
 */
export function noteCosts(rest: string): { done(file: string): void } {
  const notes = process.env[NOTES];
  if (notes === undefined) return { done: () => {} };
  let before: Omit<Cost, "file"> = { ownMs: 0, childrenMs: 0 };
  const done = (file: string) => {
    const now = readCost(readFileSync("/proc/self/stat", "utf8"));
    const cost: Cost = { file, ownMs: now.ownMs - before.ownMs, childrenMs: now.childrenMs - before.childrenMs };
    before = now;
    appendFileSync(notes, `${JSON.stringify(cost)}\n`);
  };
  process.on("exit", () => done(rest));
  return { done };
}

/** A line for each of the dearest files, and one for all. */
export function costLines(costs: readonly Cost[], count: number): readonly string[] {
  const total = ({ ownMs, childrenMs }: Cost) => ownMs + childrenMs;
  const seconds = (ms: number) => (ms / 1000).toFixed(1).padStart(7);
  const dearest = costs.toSorted((a, b) => total(b) - total(a)).slice(0, count);
  const all = costs.reduce((sum, cost) => sum + total(cost), 0);
  return [
    ...dearest.map((cost) => `${seconds(total(cost))} s of CPU, ${seconds(cost.childrenMs)} in children: ${cost.file}`),
    `${seconds(all)} s of CPU for ${costs.length} files`,
  ];
}

/** With TEST_COSTS=10 in the environment: prints the ten dearest files of what the work ran, and what all of them took. */
export async function printingCosts<T>(print: (line: string) => void, work: () => Promise<T>): Promise<T> {
  const count = Number(process.env["TEST_COSTS"] ?? 0);
  if (!(count > 0)) return await work();
  const folder = mkdtempSync(join(tmpdir(), "test-costs-"));
  const notes = join(folder, "notes");
  process.env[NOTES] = notes;
  try {
    return await work();
  } finally {
    delete process.env[NOTES];
    const costs = readFileSync(notes, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Cost);
    for (const line of costLines(costs, count)) print(line);
    rmSync(folder, { recursive: true, force: true });
  }
}
