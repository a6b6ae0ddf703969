import type { Clock, Timer } from "../../async/index.ts";
import { guarded } from "../../async/index.ts";

/** How long after now a connection ends by itself. */
interface LifetimeInput {
  readonly nowMs: number;
  /** When the caller's token expires: the `exp` of the verified token, never a header that any peer can write (W7). */
  readonly tokenExpiresMs: number;
  /** What was left of the caller's deadline when the Request came: a refresh may need that long. */
  readonly callerDeadlineMs: number | undefined;
}

/**
 * The caller's token time minus its own request timeout, as the original has it. A caller's timeout takes at most half of the
 * token's time: else a long one would end the connection as soon as it is established (W19).
 */
export function lifetimeMs({ nowMs, tokenExpiresMs, callerDeadlineMs = 0 }: LifetimeInput): number {
  const leftMs = Math.max(0, tokenExpiresMs - nowMs);
  return leftMs - Math.min(Math.max(0, callerDeadlineMs), leftMs / 2);
}

/** The original's timeout: ends a connection that is not refreshed in time; each refresh starts it again. */
export class ConnectionExpiry {
  readonly #clock: Clock;
  readonly #onExpired: () => void;
  #timer: Timer | undefined;
  #isDue = false;
  #dueMs: number | undefined;
  /** When the time would be up without a Close that is held back. */
  #withoutCloseMs: number | undefined;

  constructor(clock: Clock, onExpired: () => void) {
    this.#clock = clock;
    this.#onExpired = onExpired;
  }

  /** The time was up and has not been started again since: what waited for its turn meanwhile may be overtaken by a refresh. */
  get isDue(): boolean {
    return this.#isDue;
  }

  /** When the time is up, ms since 1970; undefined while none runs. */
  get dueMs(): number | undefined {
    return this.#dueMs;
  }

  /** (Re)starts: calls back once after `delayMs` unless restarted or cancelled. */
  restart(delayMs: number): void {
    this.cancel();
    this.#dueMs = this.#clock.now() + delayMs;
    const due = guarded("timer", () => {
      this.#isDue = true;
      this.#onExpired();
    });
    this.#timer = this.#clock.after(delayMs, due);
  }

  /** The time is up after `delayMs` at the latest, unless that is undone. Again before that it changes nothing. */
  holdBackClose(delayMs: number): void {
    if (this.#withoutCloseMs !== undefined) return;
    const nowMs = this.#clock.now();
    const dueMs = this.#dueMs ?? nowMs + delayMs;
    this.restart(Math.max(0, Math.min(delayMs, dueMs - nowMs)));
    this.#withoutCloseMs = dueMs;
  }

  /** The time is up as if no Close had been held back. */
  undoClose(): void {
    const dueMs = this.#withoutCloseMs;
    if (dueMs !== undefined) this.restart(Math.max(0, dueMs - this.#clock.now()));
  }

  cancel(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#isDue = false;
    this.#dueMs = undefined;
    this.#withoutCloseMs = undefined;
  }
}
