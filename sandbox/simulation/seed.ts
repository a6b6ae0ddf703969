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
    return seededRandom(mixed(hashOf(name) ^ mixed(this.number)));
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
  lane(name: string, clock: Clock, longestMs: number): (deliver: () => void) => void {
    const lane = new MemoryLane({ clock, random: this.random(name), longestMs });
    return (deliver) => lane.send(deliver);
  }
}

/** FNV-1a: names that differ in their last digit have hashes that differ by little, which only `mixed` spreads. */
function hashOf(text: string): number {
  const hash = [...text].reduce((sum, letter) => Math.imul(sum ^ (letter.codePointAt(0) ?? 0), 0x01000193), 0x811c9dc5);
  return mixed(hash);
}

/** MurmurHash3's finalizer: without it a name and a seed that differ by the same bits are the same numbers. */
function mixed(number: number): number {
  let bits = Math.imul(number ^ (number >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
