// Feeds a target with changed seeds. An input whose outcome is a new one becomes a seed itself: that takes the place of coverage.
import { Dice } from "./dice.ts";
import { mutate } from "./mutate.ts";
import { Finding, type Target } from "./target.ts";

/** So many executions depend on one seed and on nothing else: as many it takes at most to play a finding again. */
const EXECUTIONS_PER_SEED = 20_000;
const MOST_SEEDS = 512;
/** Of which it is remembered that they were there, for the count alone. */
const MOST_OUTCOMES = 100_000;
export const DEFAULT_MOST_BYTES = 4096;
/** What one input may take: far above what a loaded machine makes of an honest one. */
const LIMIT_MS = 250;

/** What came of a target. */
export interface Played {
  readonly executions: number;
  /** Of how many kinds its answers and refusals were. */
  readonly outcomes: number;
  /** Why it failed. */
  readonly problem: string | undefined;
  /** Plays the finding again. */
  readonly seed: number;
  readonly input: Buffer;
}

/** Called before each execution. */
export type Progress = (executions: number, seed: number, input: Buffer) => void;

/** Plays a target from a seed on until something does not hold or it has had enough. */
export async function play(
  target: Target,
  firstSeed: number,
  isEnough: (executions: number) => boolean,
  progress: Progress = () => {},
): Promise<Played> {
  const outcomes = new Set<string>();
  let executions = 0;
  for (let seed = firstSeed; ; seed++) {
    const round = new Round(target, seed, outcomes);
    for (let left = EXECUTIONS_PER_SEED; left > 0; left--) {
      if (isEnough(executions)) return { executions, outcomes: outcomes.size, problem: undefined, seed, input: none };
      const input = round.next();
      progress(executions, seed, input);
      executions += 1;
      const problem = await round.run(input);
      if (problem !== undefined) return { executions, outcomes: outcomes.size, problem, seed, input };
    }
  }
}

const none = Buffer.alloc(0);

class Round {
  readonly #target: Target;
  readonly #dice: Dice;
  readonly #inputs: Buffer[];
  readonly #known = new Set<string>();
  readonly #outcomes: Set<string>;
  readonly #words: readonly Buffer[];
  #fresh: number;

  constructor(target: Target, seed: number, outcomes: Set<string>) {
    this.#target = target;
    this.#dice = new Dice(seed);
    this.#outcomes = outcomes;
    this.#inputs = target.seeds.map((bytes) => Buffer.from(bytes));
    this.#words = (target.words ?? []).map((word) => Buffer.from(word));
    this.#fresh = this.#inputs.length;
  }

  /** Each seed as it is first, then changed ones. */
  next(): Buffer {
    if (this.#fresh > 0) return this.#inputs[--this.#fresh] as Buffer;
    const { form, mostBytes = DEFAULT_MOST_BYTES } = this.#target;
    const changes = { form, words: this.#words, donors: this.#inputs, mostBytes };
    return mutate(this.#dice.of(this.#inputs), this.#dice, changes);
  }

  /** Why the input is a finding; undefined when it is none. */
  async run(input: Buffer): Promise<string | undefined> {
    const startedAt = performance.now();
    const outcome = await outcomeOf(this.#target, input);
    if (typeof outcome !== "string") return textOf(outcome);
    if (performance.now() - startedAt > LIMIT_MS) {
      const ms = await leastMs(this.#target, input, 3);
      if (ms > LIMIT_MS) return `takes ${Math.round(ms)} ms`;
    }
    if (this.#outcomes.size < MOST_OUTCOMES) this.#outcomes.add(outcome);
    if (!this.#known.has(outcome) && this.#inputs.length < MOST_SEEDS) this.#inputs.push(input);
    this.#known.add(outcome);
    return undefined;
  }
}

/** In how little time of this thread's CPU the target does it, of so many tries: what else the machine does makes no difference. */
export async function leastMs(target: Target, input: Buffer, tries: number): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let left = tries; left > 0; left--) {
    const before = process.threadCpuUsage();
    await outcomeOf(target, input);
    const { user, system } = process.threadCpuUsage(before);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}

async function outcomeOf(target: Target, input: Buffer): Promise<string | Error> {
  try {
    const answer = target.run(input);
    return typeof answer === "string" ? answer : await answer;
  } catch (error) {
    const isRefusal = target.refusals.some((type) => error instanceof type) && !(error instanceof Finding);
    return isRefusal ? `refused: ${kindOf((error as Error).message)}` : (error as Error);
  }
}

/** The message without what the input said. */
function kindOf(message: string): string {
  return message.replace(/["'`].*["'`]|\d+/gs, "#").slice(0, 100);
}

function textOf(error: Error): string {
  return error instanceof Finding ? error.message : `throws ${error.stack ?? String(error)}`;
}
