import { seededFractions } from "../../src/async/testing/seeded-random.ts";

/** Choices that are the same for the same seed. */
export class Dice {
  readonly #fraction: () => number;

  constructor(seed: number) {
    this.#fraction = seededFractions(seed);
  }

  /** A whole number from 0 to below `limit`. */
  below(limit: number): number {
    return Math.floor(this.#fraction() * limit);
  }

  /** True once in so many times. */
  oneIn(count: number): boolean {
    return this.below(count) === 0;
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }

  /** Small as a rule, now and then anything up to `limit`. */
  length(limit: number): number {
    return 1 + this.below(this.oneIn(4) ? limit : Math.min(8, limit));
  }
}
