import { guarded } from "./event-guard.ts";
/** A timer that was set; `cancel` is safe to call more than once and after it has fired. */
export interface Timer {
  cancel(): void;
}

/** Time, so that tests can drive it by hand. All numbers are milliseconds. */
export interface Clock {
  /** Wall clock: milliseconds since 1970, as Date.now(). For expiries that other machines read. */
  now(): number;
  /** A clock that never jumps, for measuring how long something took. */
  monotonicMs(): number;
  /** Calls back once after `delayMs`. A timer alone never keeps the process alive. */
  after(delayMs: number, callback: () => void): Timer;
  /** Resolves after `delayMs`; rejects with the signal's reason as soon as it is aborted. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

/** Longest delay that a Node timer takes (2^31 - 1 ms, about 24.8 days); a longer one would fire at once. */
const LONGEST_TIMER_MS = 2_147_483_647;

/** The clock of this machine. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, callback) {
    let left = Math.max(0, delayMs);
    let handle: NodeJS.Timeout;
    const arm = () => {
      const step = Math.min(left, LONGEST_TIMER_MS);
      left -= step;
      handle = setTimeout(left > 0 ? arm : callback, step);
      handle.unref();
    };
    arm();
    return { cancel: () => clearTimeout(handle) };
  },
  sleep(delayMs, signal) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const handle = setTimeout(done, Math.min(Math.max(0, delayMs), LONGEST_TIMER_MS));
      function done() {
        signal?.removeEventListener("abort", aborted);
        resolve();
      }
      const aborted = guarded("abort", () => {
        clearTimeout(handle);
        reject(signal?.reason);
      });
      signal?.addEventListener("abort", aborted, { once: true });
    });
  },
};
