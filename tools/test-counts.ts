// What became of tests, and the line that says so.

/** What became of the tests of one run. */
export interface TestCounts {
  passed: number;
  failed: number;
  /** One for each skipped test: its name and why. */
  skips: { name: string; why: string }[];
}

/** How the reason of a skip begins that the job has announced: the machine is known to lack the thing. */
export const KNOWN_LACK = "this machine is known to lack ";

/** All counts as one. */
export function addCounts(...all: readonly TestCounts[]): TestCounts {
  return {
    passed: all.reduce((sum, { passed }) => sum + passed, 0),
    failed: all.reduce((sum, { failed }) => sum + failed, 0),
    skips: all.flatMap(({ skips }) => skips),
  };
}

/** `12 passed, 0 failed, 1 skipped`: the line that ends a run; machines read it. Skips that were announced are not counted. */
export function closingLine({ passed, failed, skips }: TestCounts): string {
  const skipped = skips.filter(({ why }) => !why.startsWith(KNOWN_LACK)).length;
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}

/** The numbers of the last closing line in a run's output; undefined where there is none. */
export function readClosingLine(output: string): { passed: number; failed: number; skipped: number } | undefined {
  const last = [...output.matchAll(/^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/gm)].at(-1);
  if (!last) return undefined;
  return { passed: Number(last[1]), failed: Number(last[2]), skipped: Number(last[3] ?? 0) };
}
