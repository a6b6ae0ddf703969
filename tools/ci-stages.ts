// What CI runs one after the other, and when a stage counts as failed.
import { readClosingLine } from "./test-counts.ts";

/** One part of a CI run: a command of the project that ends with a line of counts, or well or badly as a whole. */
export interface Stage {
  readonly name: string;
  readonly command: readonly string[];
  /** How long it takes on two cores that have nothing else to do and nothing cached, in minutes: what a change must not use up. */
  readonly budgetMinutes: number;
  /** How it says what it did. */
  readonly says: "closing line" | "exit code";
}

/** CI's own limit, in minutes, and what of it is left for the packages that the stages need. */
export const CI_LIMIT_MINUTES = 90;
export const SET_UP_MINUTES = 10;

export const stages: readonly Stage[] = [
  { name: "test", command: ["npm", "test", "--silent"], budgetMinutes: 5, says: "closing line" },
  {
    name: "demo",
    command: ["npm", "start", "--silent", "--", "--once"],
    budgetMinutes: 1,

    says: "exit code",
  },
  {
    name: "hostile",
    command: ["npm", "run", "hostile", "--silent"],
    budgetMinutes: 4,
    says: "closing line",
  },
  {
    name: "lab",
    command: ["npm", "run", "lab", "--silent"],
    budgetMinutes: 20,

    says: "closing line",
  },
  {
    name: "interop",
    command: ["npm", "run", "interop", "--silent"],
    budgetMinutes: 10,

    says: "closing line",
  },
];

/**
 * When a stage is ended, in minutes from its start: a busy machine may take its time, as long as the stages that follow still have
 * their budgets.
 */
export function limitOf(followers: readonly Stage[], elapsedMinutes: number): number {
  const reserved = followers.reduce((sum, { budgetMinutes }) => sum + budgetMinutes, 0);
  return Math.max(0, CI_LIMIT_MINUTES - SET_UP_MINUTES - elapsedMinutes - reserved);
}

/**
 * The lines of a stage's output that say what failed, each with those indented below it, cut to so many lines: who reads only the end of a
 * log finds them there.
 */
export function failuresOf(output: string, mostLines = 12): readonly string[] {
  const lines = output.split("\n");
  return lines.flatMap((line, at) => {
    if (!/^\s*✖ /u.test(line)) return [];
    const below = lines.slice(at + 1, at + mostLines);
    const end = below.findIndex((next) => !/^\s+\S/u.test(next) || /^\s*[✖✔] /u.test(next));
    return [[line, ...below.slice(0, end === -1 ? undefined : end)].join("\n")];
  });
}

/** How a stage's process ended. */
export interface StageEnd {
  /** Its exit code; null when a signal ended it. */
  readonly code: number | null;
  /** The limit that ended it, in minutes; undefined when it ended by itself. */
  readonly overLimitMinutes?: number | undefined;
  /** What it printed for machines: the end of its standard output. */
  readonly output: string;
}

/** What a stage adds to the whole, and each reason beyond its own failed tests why it is no success. */
export interface StageResult {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly problems: readonly string[];
}

/**
 * Judges how a stage ended. A stage that counts nothing has shown nothing, and a skip that is not allowed is a promise that was
 * not kept: each is a failure.
 */
export function judgeStage(stage: Stage, end: StageEnd, areSkipsAllowed: boolean): StageResult {
  const ending = problemOfEnd(end);
  if (stage.says === "exit code") {
    const problems = ending === undefined ? [] : [ending];
    return { passed: problems.length === 0 ? 1 : 0, failed: problems.length, skipped: 0, problems };
  }
  const counts = readClosingLine(end.output);
  if (!counts) return { passed: 0, failed: 1, skipped: 0, problems: [ending ?? "it ended without a line of counts"] };
  const problems: string[] = [];
  if (counts.passed + counts.failed === 0) problems.push("it counted no test");
  if (counts.skipped > 0 && !areSkipsAllowed) problems.push(`${counts.skipped} skipped, which is not allowed`);
  if (ending !== undefined && counts.failed === 0) problems.push(ending);
  return { ...counts, failed: counts.failed + problems.length, problems };
}

function problemOfEnd({ code, overLimitMinutes }: StageEnd): string | undefined {
  if (overLimitMinutes !== undefined)
    return `it was ended after ${Math.round(overLimitMinutes)} minutes: the following stages need the rest`;
  if (code === null) return "a signal ended it";
  return code === 0 ? undefined : `it ended with ${code}`;
}
