import type { Clock } from "../async/index.ts";
import { NetdevError } from "./error.ts";

interface ClearingLimit {
  /** For the error. */
  readonly link: string;
  readonly limitMs: number;
}

/** The time for all that a pod may have made without number. What else takes time between is not counted. */
export class ClearingTime {
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #limit: ClearingLimit;
  #usedMs = 0;

  constructor(clock: Pick<Clock, "monotonicMs">, limit: ClearingLimit) {
    this.#clock = clock;
    this.#limit = limit;
  }

  /** @throws {NetdevError} of kind "not-cleared" when the time is up; what `remove` throws. */
  async removeEach<T>(what: string, all: readonly T[], remove: (one: T) => Promise<void>): Promise<void> {
    for (const [at, one] of all.entries()) {
      if (this.#usedMs >= this.#limit.limitMs) {
        throw new NetdevError({ kind: "not-cleared", ...this.#limit, what, left: all.length - at });
      }
      const startedMs = this.#clock.monotonicMs();
      await remove(one);
      this.#usedMs += this.#clock.monotonicMs() - startedMs;
    }
  }
}

/** A pod has made more than can be removed in time: with another network device it is gone. */
export function isNotCleared(error: unknown): boolean {
  return error instanceof NetdevError && error.fault.kind === "not-cleared";
}
