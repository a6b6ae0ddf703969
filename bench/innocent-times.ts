import type { Call } from "../test/hostile/innocent.ts";
import { type Distribution, distributionOf } from "./statistics.ts";

/** The calls that are compared, in the order of the table. */
export const compared = ["warm Request", "warm refresh", "fresh Request", "fresh refresh"] as const;

/** How long innocents waited, by innocent and call, in ms; absent where no such call began in time. */
export type InnocentTimes = { readonly [kind in (typeof compared)[number]]?: Distribution };

/** Of those calls that began before that moment: what came later, was under nothing any more. */
export function timesOf(
  innocents: readonly { readonly name: string; readonly calls: readonly Call[] }[],
  endedAtMs: number,
): InnocentTimes {
  const byKind = Map.groupBy(
    innocents.flatMap(({ name, calls }) => calls.map((call) => ({ kind: `${name} ${call.what}`, ...call }))),
    ({ kind }) => kind,
  );
  const times: { -readonly [kind in keyof InnocentTimes]: InnocentTimes[kind] } = {};
  for (const kind of compared) {
    const inTime = (byKind.get(kind) ?? []).filter(({ startedAtMs }) => startedAtMs < endedAtMs);
    if (inTime.length > 0) times[kind] = distributionOf(inTime.map(({ tookMs }) => tookMs));
  }
  return times;
}

/** How many times longer than under the load alone. */
export interface Ratio {
  readonly p50: number;
  readonly p99: number;
}

/** Undefined where one of the two was not measured. */
export function ratioOf(attacked: Distribution | undefined, loaded: Distribution | undefined): Ratio | undefined {
  if (!attacked || !loaded) return undefined;
  return { p50: attacked.p50 / loaded.p50, p99: attacked.p99 / loaded.p99 };
}
