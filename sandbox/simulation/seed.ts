import type { Clock, Random } from "../../src/async/index.ts";
import { seededRandom } from "../../src/async/testing/seeded-random.ts";
import { MemoryLane } from "../../src/rpc/testing/memory-lane.ts";

/** All that is left to chance, from one number. What is asked of one thing changes nothing for the others. */
export class Seed {
  readonly number: number;

  constructor(number: number) {
    this.number = number;
  }

  /** The same for the same name. */
  random(name: string): Random {
    return seededRandom(this.number ^ saltOf(name));
  }

  /** A whole number in [0, below). */
  draw(name: string, below: number): number {
    return Math.floor(this.random(name).fraction() * below);
  }

  /** A time in ms, another one at each call. */
  delays(name: string, longestMs: number): () => number {
    const { fraction } = this.random(name);
    return () => fraction() * longestMs;
  }

  /** Hands things over one after the other, each a while later. */
  lane(name: string, clock: Clock, longestMs: number): (tell: () => void) => void {
    const lane = new MemoryLane({ clock, random: this.random(name), longestMs });
    return (tell) => lane.send(tell);
  }
}

function saltOf(text: string): number {
  return [...text].reduce((sum, letter) => Math.imul(sum, 31) + (letter.codePointAt(0) ?? 0), 7);
}
