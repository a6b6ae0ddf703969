import type { Form } from "./form.ts";

/** A parser, what it is fed with, and what must hold whatever that is. */
export interface Target {
  readonly name: string;
  /** What is fed, and from whom it comes. */
  readonly says: string;
  /** Inputs that are taken, as honest peers send them. */
  readonly seeds: readonly Uint8Array[];
  /** How the bytes hang together, so that a change can keep lengths right; undefined: as text or plain bytes. */
  readonly form?: Form;
  /** Pieces that are worth putting in. */
  readonly words?: readonly string[];
  /** The largest input; 4 KiB by default. */
  readonly mostBytes?: number;
  /** The largest input that time is measured of; 64 KiB by default, 0 for targets whose time says nothing of a parser. */
  readonly growsTo?: number;
  /** The error types with which it may refuse an input. */
  readonly refusals: readonly (abstract new (
    ...args: never[]
  ) => Error)[];
  /**
   * Feeds the parser and checks what must hold. Answers in a word what became of the input: each new word is a new seed.
   * @throws one of `refusals`; anything else is a finding.
   */
  run(input: Buffer): string | Promise<string>;
  /** Ends what was opened for it. */
  close?(): void | Promise<void>;
}

/** An input for which something did not hold. */
export class Finding extends Error {
  override readonly name = "Finding";
}

/** @throws {Finding} unless it holds. */
export function hold(holds: boolean, what: () => string): asserts holds {
  if (!holds) throw new Finding(what());
}

export function texts(...seeds: readonly string[]): readonly Uint8Array[] {
  return seeds.map((seed) => Buffer.from(seed));
}

export function hex(...seeds: readonly string[]): readonly Uint8Array[] {
  return seeds.map((seed) => Buffer.from(seed.replace(/\s/g, ""), "hex"));
}
