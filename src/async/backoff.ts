import { systemRandom } from "./random.ts";

/** Growing delays between tries. */
export interface Backoff {
  /** The delay before the next try, in ms. */
  nextMs(): number;
  /** Start again at the first delay: something worked. */
  reset(): void;
}

interface BackoffOptions {
  /** Delay before the first retry, in ms. */
  readonly firstMs: number;
  /** No delay is longer than this, in ms. */
  readonly limitMs: number;
  /** Growth from try to try; 2 by default. */
  readonly factor?: number;
  /** A number in [0, 1), the machine's by default. Each delay lies between a half and the whole of its step. */
  readonly random?: (() => number) | undefined;
}

/** Delays that grow up to a limit, spread at random so that many peers do not return in step. */
export function createBackoff(options: BackoffOptions): Backoff {
  let retries = 0;
  return {
    nextMs: () => backoffMs(options, retries++),
    reset() {
      retries = 0;
    },
  };
}

/** The delay of `createBackoff` after so many retries, for who counts them elsewhere. */
export function backoffMs(options: BackoffOptions, retries: number): number {
  const { firstMs, limitMs, factor = 2, random = systemRandom.fraction } = options;
  const delayMs = Math.min(firstMs * factor ** retries, limitMs);
  return delayMs / 2 + (delayMs / 2) * random();
}
