import type { Clock } from "../../src/async/index.ts";
import type { Screen } from "./screen.ts";

/** Something is not as it should be. */
export class NotSo extends Error {
  override readonly name = "NotSo";
  readonly expected: string;
  readonly actual: string;

  constructor(expected: string, actual: string) {
    super(`expected ${expected}, but it is ${actual}`);
    this.expected = expected;
    this.actual = actual;
  }
}

/** One step of a story. Returns what it found, in a few words. @throws {NotSo} or any error when it does not hold. */
export interface Step {
  readonly title: string;
  readonly run: () => Promise<string>;
}

/** Runs steps one after the other and shows each as it happens. After the first that does not hold no other is tried: they build on it. */
export class Steps {
  readonly #screen: Screen;
  readonly #clock: Clock;
  readonly #stop: AbortSignal | undefined;
  #hasFailed = false;
  #leftOut = 0;

  /** `stop`: aborted when the person wants to leave; no further step is begun then. */
  constructor(screen: Screen, clock: Clock, stop?: AbortSignal) {
    this.#screen = screen;
    this.#clock = clock;
    this.#stop = stop;
  }

  /** Whether every step held so far. */
  get held(): boolean {
    return !this.#hasFailed;
  }

  /** Whether every step was tried so far, and held. */
  get isUnbroken(): boolean {
    return !this.#hasFailed && this.#leftOut === 0;
  }

  /** How it went, in one sentence. */
  get verdict(): string {
    if (this.#hasFailed) return "Not every step held.";
    if (this.#stop?.aborted === true && this.#leftOut > 0) return "Left before the end.";
    if (this.#leftOut === 0) return "Every step held.";
    return `Every step that this machine can run held; ${this.#leftOut} were left out.`;
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      if (this.#stop?.aborted === true) this.leaveOut([step], "not tried: you left");
      else if (this.#hasFailed) this.#screen.skipped(step.title, "not tried");
      else await this.#try(step);
    }
  }

  /** Runs a step whatever failed before: cleaning up. */
  async runAnyway(step: Step): Promise<void> {
    await this.#try(step);
  }

  /** Shows steps that this machine cannot run. */
  leaveOut(steps: readonly Step[], why: string): void {
    this.#leftOut += steps.length;
    for (const { title } of steps) this.#screen.skipped(title, why);
  }

  async #try({ title, run }: Step): Promise<void> {
    this.#screen.begin(title);
    const startedAt = this.#clock.monotonicMs();
    try {
      const found = await run();
      this.#screen.done(title, this.#clock.monotonicMs() - startedAt, found);
    } catch (error) {
      this.#hasFailed = true;
      this.#screen.failed(title, this.#clock.monotonicMs() - startedAt, failureOf(error));
    }
  }
}

/** @throws {NotSo} unless both are the same; compared as JSON, to show them as they are compared. */
export function expectSame(what: string, actual: unknown, expected: unknown): void {
  const [is, should] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (is !== should) throw new NotSo(`${what} ${should}`, `${is}`);
}

/** @throws {NotSo} unless the condition holds. */
export function expectThat(holds: boolean, expected: string, actual: string): asserts holds {
  if (!holds) throw new NotSo(expected, actual);
}

/** Observes again and again until `observe` finds something. @throws {NotSo} with what was seen last when the time is up. */
export async function eventually<T>(
  clock: Clock,
  desired: {
    readonly expected: string;
    readonly limitMs: number;
    readonly observe: () => T | undefined | Promise<T | undefined>;
    readonly seen: () => string;
  },
): Promise<T> {
  const endsAt = clock.monotonicMs() + desired.limitMs;
  while (true) {
    const found = await desired.observe();
    if (found !== undefined) return found;
    if (clock.monotonicMs() >= endsAt)
      throw new NotSo(`${desired.expected} within ${desired.limitMs} ms`, desired.seen());
    await clock.sleep(5);
  }
}

function failureOf(error: unknown): { expected: string; actual: string } {
  if (error instanceof NotSo) return error;
  const actual = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { expected: "no error", actual };
}
