import assert from "node:assert/strict";

/** A guest is some thirty times slower than its host. */
const LIMIT_MS = 60_000;

/** Looks until it is so; the error says what was seen last. */
export async function eventually<T>(
  observe: () => T | Promise<T>,
  isSo: (seen: T) => boolean,
  limitMs = LIMIT_MS,
): Promise<T> {
  const endsAt = performance.now() + limitMs;
  for (;;) {
    const seen = await observe();
    if (isSo(seen)) return seen;
    if (performance.now() >= endsAt) assert.fail(`not so within ${limitMs} ms: ${JSON.stringify(seen)}`);
    await pause(100);
  }
}

/** The work's result, or a failure that says what took too long. */
export async function within<T>(limitMs: number, what: string, work: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${what} took more than ${limitMs / 1000} s`)), limitMs);
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
