// Which traces are kept: the samplers of https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers.
import type { TraceContext } from "./trace-context.ts";

/** Whether the spans of a trace are kept. @param parent the caller's context; undefined where the trace begins with us */
export type Sampler = (traceId: string, parent: TraceContext | undefined) => boolean;

/** OTEL_TRACES_SAMPLER's default: what the caller says; what begins here is kept. */
export const standardSampler: Sampler = (_traceId, parent) => parent?.isSampled ?? true;

const roots: Readonly<Record<string, (ratio: number) => (traceId: string) => boolean>> = {
  always_on: () => () => true,
  always_off: () => () => false,
  traceidratio: (ratio) => (traceId) => isBelow(traceId, ratio),
};

/**
 * A sampler by its name in OTEL_TRACES_SAMPLER.
 * @param arg OTEL_TRACES_SAMPLER_ARG: the part that is kept, 0 to 1; 1 by default
 * @throws {SyntaxError} with what was expected
 */
export function samplerNamed(name: string, arg: string | undefined): Sampler {
  const isByParent = name.startsWith("parentbased_");
  const bare = name.replace(/^parentbased_/, "");
  const root = Object.hasOwn(roots, bare) ? roots[bare] : undefined;
  if (root === undefined)
    throw new SyntaxError("always_on, always_off or traceidratio, or one of them after parentbased_");
  const decide = root(bare === "traceidratio" ? ratioOf(arg) : 1);
  return (traceId, parent) => (isByParent && parent ? parent.isSampled : decide(traceId));
}

function ratioOf(arg = "1"): number {
  const ratio = Number(arg);
  if (arg.trim() === "" || !(ratio >= 0 && ratio <= 1))
    throw new SyntaxError("a number from 0 to 1 in OTEL_TRACES_SAMPLER_ARG");
  return ratio;
}

/** As the SDKs in Go and Java compute it, so that one trace is kept by all or none: 63 bits of the id's second half. */
function isBelow(traceId: string, ratio: number): boolean {
  return BigInt(`0x${traceId.slice(16)}`) >> 1n < BigInt(Math.floor(ratio * 2 ** 63));
}
