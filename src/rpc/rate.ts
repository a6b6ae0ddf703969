import type { Clock } from "../async/index.ts";

/** Owners that are remembered; of more, those who have rested longest begin again. */
const OWNERS = 1024;
const SECOND_MS = 1000;

/** How much of one thing may be done in a second. */
export interface RateLimits {
  /** By one owner, the manager too. */
  readonly each: number;
  /** By all owners together, but the manager. */
  readonly others: number;
}

/** So much in each second, and as much at once. */
class Bucket {
  readonly #perSecond: number;
  #left: number;
  #atMs: number;

  constructor(perSecond: number, nowMs: number) {
    this.#perSecond = perSecond;
    this.#left = perSecond;
    this.#atMs = nowMs;
  }

  left(nowMs: number): number {
    this.#left = Math.min(this.#perSecond, this.#left + (this.#perSecond * (nowMs - this.#atMs)) / SECOND_MS);
    this.#atMs = nowMs;
    return this.#left;
  }

  take(amount: number): void {
    this.#left -= amount;
  }
}

/**
 * How much of one thing each owner may do in a second. For what is garbage at once, so that no count of what is in use would see it:
 * memory that is taken faster than it is collected is gone all the same. The manager counts apart, as in `Shares`.
 */
export class Rate {
  readonly #limits: RateLimits;
  readonly #isManager: (owner: string) => boolean;
  readonly #clock: Pick<Clock, "monotonicMs">;
  /** Those that rested longest first. */
  readonly #buckets = new Map<string, Bucket>();
  readonly #others: Bucket;

  constructor(limits: RateLimits, isManager: (owner: string) => boolean, clock: Pick<Clock, "monotonicMs">) {
    this.#limits = limits;
    this.#isManager = isManager;
    this.#clock = clock;
    this.#others = new Bucket(limits.others, clock.monotonicMs());
  }

  /** Takes it all where something is left, or nothing and answers false: what is large would wait for ever behind what is small. */
  take(owner: string, amount: number): boolean {
    const nowMs = this.#clock.monotonicMs();
    const own = this.#bucketOf(owner, nowMs);
    const isApart = this.#isManager(owner);
    if (own.left(nowMs) <= 0 || (!isApart && this.#others.left(nowMs) <= 0)) return false;
    own.take(amount);
    if (!isApart) this.#others.take(amount);
    return true;
  }

  #bucketOf(owner: string, nowMs: number): Bucket {
    const bucket = this.#buckets.get(owner) ?? new Bucket(this.#limits.each, nowMs);
    this.#buckets.delete(owner);
    this.#buckets.set(owner, bucket);
    const [oldest] = this.#buckets.keys();
    if (this.#buckets.size > OWNERS && oldest !== undefined) this.#buckets.delete(oldest);
    return bucket;
  }
}
