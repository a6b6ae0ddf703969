/** Units of the `grpc-timeout` header, in milliseconds. */
const unitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

/** Milliseconds of a `grpc-timeout` header ("250m"); undefined when it is not one. */
export function parseTimeout(text: string): number | undefined {
  const match = /^(\d{1,8})([HMSmun])$/.exec(text);
  const unit = unitMs[match?.[2] ?? ""];
  return unit === undefined ? undefined : Number(match?.[1]) * unit;
}

/** The header for so many milliseconds: at most eight digits, so long times lose their last digits. Never less than `ms`. */
export function formatTimeout(ms: number): string {
  for (const unit of ["m", "S", "M"]) {
    const amount = Math.ceil(Math.max(0, ms) / (unitMs[unit] ?? 1));
    if (amount < 1e8) return `${amount}${unit}`;
  }
  return `${Math.min(Math.ceil(ms / 3_600_000), 99_999_999)}H`;
}
