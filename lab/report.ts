// What a guest says on its serial port, one JSON object to a line, and what becomes of it.
import type { Kernel } from "./topologies.ts";

/** How long steps took in a guest, in ms, in the order in which they were measured. */
export type Figures = Readonly<Record<string, readonly number[]>>;

/** A line from the guest. */
export type GuestLine =
  /** A test within a scenario. */
  | {
      readonly kind: "test";
      readonly scenario: string;
      readonly name: string;
      readonly ms: number;
      readonly error?: string;
    }
  /** The scenario is over. */
  | { readonly kind: "scenario"; readonly scenario: string; readonly ms: number }
  | { readonly kind: "figures"; readonly figures: Figures }
  /** Everything that was planned has been reported. */
  | { readonly kind: "done" };

/** One test of one guest. */
export interface TestResult {
  readonly scenario: string;
  readonly name: string;
  readonly ms: number;
  /** Why it failed. */
  readonly error: string | undefined;
}

/** How one guest ended. */
export interface GuestResult {
  readonly kernel: Kernel;
  readonly topology: string;
  readonly tests: readonly TestResult[];
  readonly figures: Figures;
  /** From the start of QEMU to its end. */
  readonly ms: number;
}

/** Reads a line of the serial port; undefined when it is none of ours, as when the kernel writes over it. */
export function readGuestLine(text: string): GuestLine | undefined {
  try {
    const line = JSON.parse(text) as GuestLine;
    return typeof line === "object" && line !== null && "kind" in line ? line : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The results of a guest that was to run these scenarios. A scenario that it did not bring to its end is one more failure:
 * nothing that was promised falls silent.
 * @param ending why the guest ended, where that was not as it should be.
 */
export function resultOf(
  guest: Pick<GuestResult, "kernel" | "topology" | "ms">,
  planned: readonly string[],
  lines: readonly GuestLine[],
  ending: string | undefined,
): GuestResult {
  const tests: TestResult[] = [];
  let figures: Figures = {};
  for (const line of lines) {
    if (line.kind === "test") tests.push({ ...line, error: line.error });
    if (line.kind === "figures") figures = { ...figures, ...line.figures };
  }
  for (const scenario of planned) {
    const isOver = lines.some((line) => line.kind === "scenario" && line.scenario === scenario);
    const isEmpty = !tests.some((test) => test.scenario === scenario);
    if (isOver && !isEmpty) continue;
    const error = isOver
      ? "it has no test"
      : `it did not come to its end: ${ending ?? "the guest went without a word"}`;
    tests.push({ scenario, name: "the whole scenario", ms: 0, error });
  }
  if (ending !== undefined && !tests.some(({ error }) => error !== undefined)) {
    tests.push({ scenario: "guest", name: "ends well", ms: 0, error: ending });
  }
  return { ...guest, tests, figures };
}

/** "3 passed, 0 failed", as all test commands of the project end. */
export function closingLine(results: readonly GuestResult[]): string {
  const tests = results.flatMap((result) => result.tests);
  const failed = tests.filter(({ error }) => error !== undefined).length;
  return `${tests.length - failed} passed, ${failed} failed`;
}

/** The figures of all guests for the benchmark's JSON: by kernel, then by step; times in ms. */
export function figuresOf(results: readonly GuestResult[]): Readonly<Record<string, unknown>> {
  const byKernel = Map.groupBy(results, ({ kernel }) => kernel);
  return Object.fromEntries(
    [...byKernel].map(([kernel, guests]) => {
      const figures = Object.assign({}, ...guests.map((guest) => guest.figures)) as Figures;
      const steps = Object.entries(figures).map(([step, values]) => [`${step}_ms`, summaryOf(values)]);
      const boots = Object.fromEntries(guests.map(({ topology, ms }) => [topology, Math.round(ms / 100) / 10]));
      return [`linux_${kernel}`, { ...Object.fromEntries(steps), guest_s: boots }];
    }),
  );
}

function summaryOf(values: readonly number[]): Readonly<Record<string, number>> {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
  const round = (value: number) => Math.round(value * 10) / 10;
  return { samples: sorted.length, p50: round(at(0.5)), max: round(at(1)) };
}
