/** A distribution as the report has it, in the unit of its samples. */
export interface Distribution {
  readonly p50: number;
  readonly p99: number;
  /** How many samples. Of fewer than a hundred, p99 is the largest. */
  readonly n: number;
}

/** The smallest sample that so much of all samples do not exceed (nearest rank): a value that was measured, never one between. */
export function percentile(samples: readonly number[], share: number): number {
  if (samples.length === 0) throw new RangeError("Cannot take a percentile: there are no samples");
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

export function distributionOf(samples: readonly number[]): Distribution {
  return { p50: percentile(samples, 0.5), p99: percentile(samples, 0.99), n: samples.length };
}

/** How much `y` grows for each 1 of `x`: least squares. */
export function slopeOf(points: readonly { readonly x: number; readonly y: number }[]): number {
  const meanX = meanOf(points.map(({ x }) => x));
  const meanY = meanOf(points.map(({ y }) => y));
  const run = points.reduce((sum, { x }) => sum + (x - meanX) ** 2, 0);
  if (run === 0) throw new RangeError(`Cannot take a slope of ${points.length} points at the same place`);
  return points.reduce((sum, { x, y }) => sum + (x - meanX) * (y - meanY), 0) / run;
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
