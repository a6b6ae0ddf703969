import { MIB } from "./memory-cgroup.ts";
import type { Outcome } from "./play.ts";

export interface Row {
  readonly mib: number;
  readonly way: string;
  readonly attack: string;
  readonly outcome: Outcome;
}

const HEADINGS = [
  "MiB",
  "way",
  "a peer …",
  "calls",
  "p50 ms",
  "slowest ms",
  "again",
  "CPU ms",
  "RSS MiB",
  "log KB",
  "settled ms",
];
const LONGEST = 64;

/** How the innocents fared: figures, and no test. What a busy machine adds is in the first rows, which no attack has. */
export function tableOf(rows: readonly Row[]): readonly string[] {
  const lines = [HEADINGS, ...rows.map(cellsOf)];
  const widths = HEADINGS.map((_, at) => Math.max(...lines.map((cells) => cells[at]?.length ?? 0)));
  return lines.map((cells) =>
    cells
      .map((cell, at) => (at === 1 || at === 2 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)))
      .join("  "),
  );
}

function cellsOf({ mib, way, attack, outcome }: Row): readonly string[] {
  const { calls, retries, memory, cpuMs, logBytes, settledMs } = outcome;
  const sorted = calls.map(({ tookMs }) => tookMs).toSorted((a, b) => a - b);
  const ms = (part: number) =>
    String(Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0));
  const numbers = [sorted.length, ms(0.5), ms(1), retries.length, cpuMs, Math.round(memory.rssBytes / MIB)];
  return [mib, way, attack.slice(0, LONGEST), ...numbers, Math.round(logBytes / 1000), settledMs].map(String);
}
