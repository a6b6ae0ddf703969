import type { Clock, Timer } from "../clock.ts";
import { guarded } from "../event-guard.ts";

interface VirtualClockOptions {
  /** Milliseconds since 1970 at the start. */
  readonly nowMs?: number;
  /** How much later than requested a timer fires, in ms, as on a busy machine; never later by default. */
  readonly late?: () => number;
}

/**
 * Time that passes only while there is nothing else to do: as soon as the process is idle the next timer is due, earlier ones
 * first, those of one moment in the order in which they were set. A simulation on it takes no time, and is the same each time.
 */
export class VirtualClock implements Clock {
  #nowMs: number;
  readonly #late: () => number;
  #timers: { readonly atMs: number; readonly callback: () => void }[] = [];
  #isTurning = false;
  #isStopped = false;

  constructor({ nowMs = 1_700_000_000_000, late = () => 0 }: VirtualClockOptions = {}) {
    this.#nowMs = nowMs;
    this.#late = late;
  }

  now = () => Math.floor(this.#nowMs);
  monotonicMs = () => this.#nowMs;

  /** Timers that are set. */
  get pendingCount(): number {
    return this.#timers.length;
  }

  after(delayMs: number, callback: () => void): Timer {
    if (this.#isStopped) return { cancel() {} };
    const timer = { atMs: this.#nowMs + Math.max(0, delayMs) + this.#late(), callback };
    const later = this.#timers.findLastIndex(({ atMs }) => atMs <= timer.atMs) + 1;
    this.#timers.splice(later, 0, timer);
    this.#turn();
    return {
      cancel: () => {
        const at = this.#timers.indexOf(timer);
        if (at >= 0) this.#timers.splice(at, 1);
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

  /** Time stops from now on: what waits for it waits for ever. */
  stop(): void {
    this.#isStopped = true;
    this.#timers = [];
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
