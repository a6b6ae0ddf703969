import { type Clock, guarded, startDeadline } from "../async/index.ts";
import type { Uevent, UeventSource } from "../kernel/index.ts";

/** What to wait for, and when it is worth reading the node again. */
export interface Awaited<T> {
  /** For the message when time is up: "network device of 0000:01:10.0". */
  readonly what: string;
  /** Reads the node; undefined when it is not there yet. */
  readonly observe: () => Promise<T | undefined>;
  /** Whether the event may have brought it. A lost event always counts. */
  readonly concerns: (event: Uevent) => boolean;
  readonly limitMs: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Waits for what the kernel announces: reads the node when it says so and never polls. When time is up it reads once more:
 * an event can be lost. Undefined when it is not there even then.
 * @throws the signal's reason when it is aborted.
 */
export async function waitForUevent<T>(
  desired: Awaited<T>,
  sources: { readonly uevents: UeventSource; readonly clock: Clock },
): Promise<T | undefined> {
  let news = Promise.withResolvers<void>();
  // Listening begins before the first read: what comes between the two must not be missed.
  const stop = sources.uevents.subscribe((event) => {
    if (event.action === "lost" || desired.concerns(event)) news.resolve();
  });
  const timeUp = startDeadline(sources.clock, desired.limitMs, { what: desired.what });
  const over = untilAborted(timeUp.signal, desired.signal);
  try {
    for (;;) {
      desired.signal?.throwIfAborted();
      const isLast = timeUp.signal.aborted;
      news = Promise.withResolvers<void>();
      const found = await desired.observe();
      if (found !== undefined || isLast) return found;
      await Promise.race([news.promise, over.promise]);
    }
  } finally {
    over.stop();
    timeUp.end();
    stop();
  }
}

function untilAborted(...signals: readonly (AbortSignal | undefined)[]) {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = guarded("abort", () => resolve());
  for (const signal of signals) signal?.addEventListener("abort", done, { once: true });
  return { promise, stop: () => signals.forEach((signal) => void signal?.removeEventListener("abort", done)) };
}

/** Whether the event is about the PCI function or something beneath it, such as its network device. */
export function isAbout(event: Uevent, address: string): boolean {
  return event.devpath.split("/").includes(address);
}
