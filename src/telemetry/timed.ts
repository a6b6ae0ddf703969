import type { Clock } from "../async/index.ts";

/** How work ended, as a label. */
export const outcomes = ["ok", "failed"] as const;

/** Does the work and reports how long it took, also when it fails. */
export async function timed<T>(
  clock: Clock,
  observe: (outcome: (typeof outcomes)[number], seconds: number) => void,
  work: () => Promise<T>,
): Promise<T> {
  const startedMs = clock.monotonicMs();
  const ended = (outcome: (typeof outcomes)[number]) => observe(outcome, (clock.monotonicMs() - startedMs) / 1000);
  try {
    const result = await work();
    ended("ok");
    return result;
  } catch (error) {
    ended("failed");
    throw error;
  }
}
