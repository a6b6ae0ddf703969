// Changes of an input. None knows what the bytes mean beyond how they hang together (form.ts).
import type { Dice } from "./dice.ts";
import type { Form, Part } from "./form.ts";

/** What to change with. */
export interface Changes {
  readonly form?: Form | undefined;
  readonly words: readonly Buffer[];
  /** Other inputs, whose parts may be put in. */
  readonly donors: readonly Buffer[];
  readonly mostBytes: number;
}

const EDGES = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] as const;
/** How deep parts are looked for in parts. */
const DEEPEST = 8;

/** The input with one to a few changes, never above the limit. */
export function mutate(input: Buffer, dice: Dice, changes: Changes): Buffer {
  let bytes = input;
  for (let left = dice.oneIn(3) ? dice.length(8) : 1; left > 0; left--) {
    const isForm = changes.form && !dice.oneIn(4);
    bytes = isForm ? mutateParts(bytes, dice, changes, 0) : mutateBytes(bytes, dice, changes);
  }
  return bytes.length > changes.mostBytes ? bytes.subarray(0, changes.mostBytes) : bytes;
}

function mutateParts(bytes: Buffer, dice: Dice, changes: Changes, depth: number): Buffer {
  const { form, donors } = changes;
  const parts = depth < DEEPEST ? form?.split(bytes) : undefined;
  if (!form || !parts || parts.length === 0) return mutateBytes(bytes, dice, changes);
  const at = dice.below(parts.length);
  const part = parts[at] as Part;
  switch (dice.below(10)) {
    case 0:
      return form.join(parts.toSpliced(at, 1));
    case 1:
      return form.join(parts.toSpliced(at, 0, ...Array<Part>(dice.length(32)).fill(part)));
    case 2:
      return form.join(parts.with(dice.below(parts.length), part));
    case 3: {
      const others = form.split(dice.of(donors)) ?? [];
      return others.length === 0 ? bytes : form.join(parts.toSpliced(at, 0, dice.of(others)));
    }
    case 4:
      return form.join(parts.with(at, { ...part, tag: Math.max(0, part.tag + dice.below(33) - 16) }));
    default:
      return form.join(parts.with(at, { ...part, body: mutateParts(part.body, dice, changes, depth + 1) }));
  }
}

type Change = (bytes: Buffer, at: number, dice: Dice, changes: Changes) => Buffer;

const byteChanges: readonly Change[] = [
  (bytes, at, dice) => withByte(bytes, at, (bytes[at] ?? 0) ^ (1 << dice.below(8))),
  (bytes, at, dice) => withByte(bytes, at, dice.below(256)),
  (bytes, at, dice) => withByte(bytes, at, (bytes[at] ?? 0) + dice.of([-1, 1])),
  (bytes, at, dice) => overwritten(bytes, at, numberBytes(dice.of(EDGES), dice)),
  (bytes, at, dice) => inserted(bytes, at, randomBytes(dice)),
  (bytes, at, dice) => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + dice.length(bytes.length))]),
  (bytes, at, dice) => inserted(bytes, at, repeated(bytes.subarray(at, at + dice.length(16)), dice.length(64))),
  (bytes, at, dice) => inserted(bytes, at, bytes.subarray(dice.below(bytes.length + 1)).subarray(0, dice.length(64))),
  (bytes, at, dice, { donors }) => Buffer.concat([bytes.subarray(0, at), tailOf(dice.of(donors), dice)]),
  (bytes, at, dice, { donors }) => inserted(bytes, at, tailOf(dice.of(donors), dice).subarray(0, dice.length(64))),
  (bytes, at) => bytes.subarray(0, at),
  (bytes, at, dice, { words }) => (words.length === 0 ? bytes : inserted(bytes, at, dice.of(words))),
  (bytes, at, dice, { words }) => (words.length === 0 ? bytes : overwritten(bytes, at, dice.of(words))),
];

function mutateBytes(bytes: Buffer, dice: Dice, changes: Changes): Buffer {
  return dice.of(byteChanges)(bytes, dice.below(bytes.length + 1), dice, changes);
}

function withByte(bytes: Buffer, at: number, byte: number): Buffer {
  const changed = Buffer.from(bytes);
  if (at < changed.length) changed[at] = byte;
  return changed;
}

function overwritten(bytes: Buffer, at: number, piece: Buffer): Buffer {
  return Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at + piece.length)]);
}

function inserted(bytes: Buffer, at: number, piece: Buffer): Buffer {
  return Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]);
}

export function repeated(unit: Buffer, times: number): Buffer {
  return Buffer.alloc(unit.length * times, unit.length === 0 ? 0 : unit);
}

function tailOf(bytes: Buffer, dice: Dice): Buffer {
  return bytes.subarray(dice.below(bytes.length + 1));
}

function numberBytes(value: number, dice: Dice): Buffer {
  const bytes = Buffer.alloc(4);
  if (dice.oneIn(2)) bytes.writeUInt32LE(value);
  else bytes.writeUInt32BE(value);
  return bytes.subarray(0, dice.of([1, 2, 4]));
}

function randomBytes(dice: Dice): Buffer {
  return Buffer.from(Array.from({ length: dice.length(32) }, () => dice.below(256)));
}
