import { systemRandom } from "./random.ts";

/** Growing delays between tries. */
export interface Backoff {
  /** The delay before the next try, in ms. */
  nextMs(): number;
  /** Start again at the first delay: something worked. */
  reset(): void;
}

export interface BackoffOptions {
  /** Delay before the first retry, in ms. */
  readonly firstMs: number;
  /** No delay is longer than this, in ms. */
  readonly limitMs: number;
  /** Growth from try to try; 2 unless told. */
  readonly factor?: number;
  /** A number in [0, 1), the machine's by default. Each delay lies between a half and the whole of its step. */
  readonly random?: () => number;
}

/** Delays that grow up to a limit, spread at random so that many peers do not return in step. */
export function createBackoff(options: BackoffOptions): Backoff {
  const { firstMs, limitMs, factor = 2, random = systemRandom.fraction } = options;
  let stepMs = firstMs;
  return {
    nextMs() {
      const delayMs = Math.min(stepMs, limitMs);
      stepMs = Math.min(stepMs * factor, limitMs);
      return delayMs / 2 + (delayMs / 2) * random();
    },
    reset() {
      stepMs = firstMs;
    },
  };
}
