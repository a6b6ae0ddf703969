// Waiting in a test for what something else brings about. The limits only end a test that fails: a passing one never meets them.
import { AssertionError } from "node:assert/strict";
import { setImmediate, setTimeout as wait } from "node:timers/promises";

const LIMIT_MS = 20_000;
/** What is brought about in this process takes few turns; another process is waited for without keeping its processor from it. */
const BUSY_TURNS = 500;
const PAUSE_MS = 2;

interface UntilOptions {
  /** Between two looks, in place of a turn of the event loop: lets time of a clock pass, or tries again. */
  readonly turn?: () => unknown;
  readonly limitMs?: number;
}

/** Waits until it is so. @throws AssertionError with what was awaited. */
export async function until(
  awaited: string,
  isSo: () => boolean | Promise<boolean>,
  { turn, limitMs = LIMIT_MS }: UntilOptions = {},
): Promise<void> {
  const endsAt = performance.now() + limitMs;
  for (let turns = 0; !(await isSo()); turns += 1) {
    if (performance.now() > endsAt) throw failure(awaited, limitMs, until);
    await (turn?.() ?? (turns < BUSY_TURNS ? setImmediate() : wait(PAUSE_MS)));
  }
}

/** The result of the work. @throws AssertionError with what was awaited, if it does not end. */
export async function within<T>(awaited: string, work: Promise<T>, limitMs = LIMIT_MS): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(failure(awaited, limitMs, within)), limitMs);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function failure(awaited: string, limitMs: number, stackStartFn: (...args: never) => unknown): AssertionError {
  return new AssertionError({ message: `Waited ${limitMs / 1000} s in vain: ${awaited}`, stackStartFn });
}
