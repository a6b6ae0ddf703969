import { type Clock, systemClock, type Timer } from "../src/async/index.ts";

/** What waits for a time: called at each leap. */
type Sleeper = () => void;

/** The machine's clock, which a test can have leap: whatever waits for a time has then waited so much longer. */
export class LeapClock implements Clock {
  #leaptMs = 0;
  #setMs = 0;
  readonly #sleepers = new Set<Sleeper>();

  now(): number {
    return systemClock.now() + this.#leaptMs + this.#setMs;
  }

  monotonicMs(): number {
    return systemClock.monotonicMs() + this.#leaptMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    const dueMs = this.monotonicMs() + delayMs;
    let timer: Timer | undefined;
    const cancel = () => {
      timer?.cancel();
      this.#sleepers.delete(arm);
    };
    const fire = () => {
      cancel();
      callback();
    };
    const arm = () => {
      timer?.cancel();
      timer = systemClock.after(dueMs - this.monotonicMs(), fire);
    };
    this.#sleepers.add(arm);
    arm();
    return { cancel };
  }

  async sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const dueMs = this.monotonicMs() + delayMs;
    for (let leftMs = delayMs; leftMs > 0; leftMs = dueMs - this.monotonicMs()) {
      const leap = new AbortController();
      const wake = () => leap.abort();
      this.#sleepers.add(wake);
      try {
        await systemClock.sleep(leftMs, signal ? AbortSignal.any([signal, leap.signal]) : leap.signal);
      } catch {
        signal?.throwIfAborted();
      } finally {
        this.#sleepers.delete(wake);
      }
    }
  }

  /** Sets the wall clock so much ahead, or back where negative, as an operator or NTP does: no time passes. */
  set(ms: number): void {
    this.#setMs += ms;
  }

  leap(ms: number): void {
    this.#leaptMs += ms;
    for (const sleeper of [...this.#sleepers]) sleeper();
  }
}
