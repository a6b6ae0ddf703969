import type { Clock } from "../async/index.ts";
import { guarded } from "../async/index.ts";

/** Wakes one loop, which reads the state of things itself: a call carries nothing and is never lost. */
export class Wakeup {
  readonly #clock: Clock;
  #hasRung = false;
  #wake: () => void = () => {};

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  ring(): void {
    this.#hasRung = true;
    this.#wake();
  }

  /** Returns at the first ring since the last wait, after `limitMs`, or when the signal is aborted. */
  async wait(limitMs: number, signal: AbortSignal): Promise<void> {
    if (!this.#hasRung && !signal.aborted) await this.#sleep(limitMs, signal);
    this.#hasRung = false;
  }

  async #sleep(limitMs: number, signal: AbortSignal): Promise<void> {
    const woken = Promise.withResolvers<void>();
    const wake = guarded("abort", () => woken.resolve());
    this.#wake = wake;
    signal.addEventListener("abort", wake, { once: true });
    const timer = this.#clock.after(limitMs, wake);
    await woken.promise;
    timer.cancel();
    signal.removeEventListener("abort", wake);
  }
}
