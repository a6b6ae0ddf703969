// How long a guest may still take, not counting what the host kept from it.
import { readdirSync, readFileSync } from "node:fs";

const EVERY_MS = 5_000;

/**
 * Aborts when the process has had `limitMs` in which it could have run. The time in which its busiest thread waited for a processor
 * is not counted: a host that does other work makes a guest slow, not stuck.
 */
export function patience(pid: number, limitMs: number): { readonly signal: AbortSignal; stop(): void } {
  const over = new AbortController();
  const startedAt = performance.now();
  const timer = setInterval(() => {
    if (performance.now() - startedAt - waitedMs(pid) > limitMs) over.abort();
  }, EVERY_MS);
  return { signal: over.signal, stop: () => clearInterval(timer) };
}

/** How long the busiest thread was ready to run and did not, in ms; 0 for a process that has gone. */
export function waitedMs(pid: number): number {
  try {
    const threads = readdirSync(`/proc/${pid}/task`).map((thread) =>
      readSchedstat(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8")),
    );
    return threads.reduce((most, thread) => (thread.ranMs > most.ranMs ? thread : most)).waitedMs;
  } catch {
    return 0;
  }
}

/** Time on a processor, time on its queue (ns), time slices: Documentation/scheduler/sched-stats.rst of the kernel. */
export function readSchedstat(text: string): { readonly ranMs: number; readonly waitedMs: number } {
  const [ran = Number.NaN, waited = Number.NaN] = text.trim().split(" ").map(Number);
  if (!Number.isFinite(ran) || !Number.isFinite(waited)) throw new RangeError(`Cannot read schedstat: "${text}"`);
  return { ranMs: ran / 1e6, waitedMs: waited / 1e6 };
}
