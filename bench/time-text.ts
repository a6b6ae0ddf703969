import type { Distribution } from "./statistics.ts";

/** `p50 / p99`, as the tables have them; undefined of what was not measured. */
export function timeText(times: Pick<Distribution, "p50" | "p99"> | undefined): string | undefined {
  return times && `${ms(times.p50)} / ${ms(times.p99)}`;
}

export function ms(value: number): string {
  return value.toFixed(value < 10 ? 2 : 1);
}
