import type { Clock, Timer } from "../clock.ts";
import { guarded } from "../event-guard.ts";

/**
 * Time that passes only while there is nothing else to do: as soon as the process is idle the next timer is due, earlier ones
 * first, those of one moment in the order in which they were set. A simulation on it takes no time, and is the same each time.
 */
export class VirtualClock implements Clock {
  #nowMs: number;
  #timers: { readonly atMs: number; readonly callback: () => void }[] = [];
  #isTurning = false;

  constructor(nowMs = 1_700_000_000_000) {
    this.#nowMs = nowMs;
  }

  now = () => this.#nowMs;
  monotonicMs = () => this.#nowMs;

  after(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + Math.max(0, delayMs), callback };
    const later = this.#timers.findIndex(({ atMs }) => atMs > timer.atMs);
    this.#timers.splice(later < 0 ? this.#timers.length : later, 0, timer);
    this.#turn();
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((set) => set !== timer);
      },
    };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const aborted = guarded("abort", () => {
        timer.cancel();
        reject(signal?.reason);
      });
      const timer = this.after(delayMs, () => {
        signal?.removeEventListener("abort", aborted);
        resolve();
      });
      signal?.addEventListener("abort", aborted, { once: true });
    });
  }

  /** All that can run without time passing has run by the next turn of the event loop. */
  #turn(): void {
    if (this.#isTurning) return;
    this.#isTurning = true;
    const turn = guarded("timer", () => {
      this.#isTurning = false;
      const next = this.#timers.shift();
      if (!next) return;
      this.#nowMs = next.atMs;
      if (this.#timers.length > 0) this.#turn();
      next.callback();
    });
    setImmediate(turn);
  }
}
