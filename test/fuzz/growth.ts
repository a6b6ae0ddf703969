// Does the time grow with the size of an input, or with its square? Inputs are a seed with a piece of it again and again in its middle.
import { Dice } from "./dice.ts";
import { leastMs } from "./engine.ts";
import type { Part } from "./form.ts";
import { repeated } from "./mutate.ts";
import type { Target } from "./target.ts";

const DEFAULT_GROWS_TO = 64 * 1024;
/** Below it a measurement says nothing. */
const LEAST_MS = 2;
/** Of twice the size, in times of the size: more is reported. */
const ODD = 3;
/** Of four times the size: proportional is 4, the square 16. More than that, and long enough that it is no accident, is a failure. */
const BAD = 11;
const BAD_MS = 15;

/** The least time of so many runs, in ms of CPU. */
export type Measure = (target: Target, input: Buffer, tries: number) => Promise<number>;

/** What was measured that grows faster than its input. */
export interface Growth {
  readonly isBad: boolean;
  readonly says: string;
  readonly seed: number;
}

/** Tries repetitions until the time is up. */
export async function measureGrowth(
  target: Target,
  firstSeed: number,
  isEnough: () => boolean,
  measure: Measure = leastMs,
): Promise<readonly Growth[]> {
  const { growsTo = DEFAULT_GROWS_TO } = target;
  const found: Growth[] = [];
  for (let seed = firstSeed; growsTo > 0 && !isEnough(); seed++) {
    const make = repetition(target, new Dice(seed));
    const growth = await growthOf((input, tries) => measure(target, input, tries), make, growsTo);
    if (growth) found.push({ ...growth, seed });
    if (growth?.isBad) break;
  }
  return found;
}

async function growthOf(
  measure: (input: Buffer, tries: number) => Promise<number>,
  make: (bytes: number) => Buffer,
  growsTo: number,
): Promise<Omit<Growth, "seed"> | undefined> {
  let bytes = growsTo / 16;
  while (bytes < growsTo && (await measure(make(bytes), 1)) < BAD_MS) bytes *= 2;
  const longMs = await measure(make(bytes), 2);
  if (longMs < LEAST_MS) return undefined;
  // In turn: what is measured later would profit from what V8 has made of the parser meanwhile.
  const measured = async (tries: number) => {
    const [quarter, half, whole] = [make(bytes / 4), make(bytes / 2), make(bytes)];
    const ms = { quarter: Number.POSITIVE_INFINITY, half: Number.POSITIVE_INFINITY, whole: Number.POSITIVE_INFINITY };
    for (let left = tries; left > 0; left--) {
      ms.whole = Math.min(ms.whole, await measure(whole, 1));
      ms.half = Math.min(ms.half, await measure(half, 1));
      ms.quarter = Math.min(ms.quarter, await measure(quarter, 1));
    }
    return ms;
  };
  const first = await measured(2);
  if (first.whole < ODD * first.half) return undefined;
  const { quarter, half, whole } = await measured(8);
  // Once more: a list that no longer fits where V8 keeps young ones costs a jump, and no more.
  if (whole < ODD * half || (await measure(make(2 * bytes), 3)) < ODD * whole) return undefined;
  const isBad = whole > BAD * quarter && whole > BAD_MS;
  const shown = [quarter, half, whole].map((ms) => ms.toFixed(1)).join(", ");
  const unit = JSON.stringify(make(0).subarray(0, 64).toString("latin1"));
  return { isBad, says: `${shown} ms for a quarter, a half and all of ${bytes} bytes; around ${unit}` };
}

/** A function that gives about so many bytes. */
function repetition(target: Target, dice: Dice): (bytes: number) => Buffer {
  const seed = Buffer.from(dice.of(target.seeds));
  const { form, words = [] } = target;
  const path = form ? partAt(target, seed, dice) : undefined;
  if (path && !dice.oneIn(3)) return path;
  const at = dice.below(seed.length + 1);
  const own = seed.subarray(at, at + dice.length(12));
  const unit =
    words.length > 0 && dice.oneIn(2) ? Buffer.from(dice.of(words)) : own.length > 0 ? own : Buffer.of(dice.below(256));
  const tail = dice.oneIn(2) ? seed.subarray(at) : Buffer.of(dice.below(128));
  return (bytes) => Buffer.concat([seed.subarray(0, at), repeated(unit, Math.ceil(bytes / unit.length)), tail]);
}

/** The seed with one of its parts, at any depth, again and again; all lengths around it right. */
function partAt(target: Target, seed: Buffer, dice: Dice): ((bytes: number) => Buffer) | undefined {
  const { form } = target;
  const parts = form?.split(seed);
  if (!form || !parts || parts.length === 0) return undefined;
  const at = dice.below(parts.length);
  const part = parts[at] as Part;
  const inner = dice.oneIn(3) ? undefined : partAt(target, part.body, dice);
  if (inner) return (bytes) => form.join(parts.with(at, { ...part, body: inner(bytes) }));
  const size = form.join([part]).length;
  return (bytes) => form.join(parts.toSpliced(at, 0, ...Array<Part>(Math.ceil(bytes / size)).fill(part)));
}
