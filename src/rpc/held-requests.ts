import { type ShareLimits, Shares } from "./shares.ts";

/** What an element takes once it is decoded, at most: an empty segment of a path. */
const ELEMENT_BYTES = 160;
/** The texts of a message, and the message as it came beside them. */
const BYTES_OF_BYTE = 2;
/** A Request through five hops takes 70 KiB, a Close of it less. */
const SMALL_BYTES = 256 * 1024;
/** Of each share, what requests may take that are not small: others find room beside them. */
const PART_OF_LARGE = 3 / 4;

/** A request as it came. */
export interface Undecoded {
  readonly elements: number;
  readonly bytes: number;
}

/** What requests of each owner take that are decoded and whose calls have not ended. */
export class HeldRequests {
  readonly #all: Shares;
  readonly #large: Shares;
  readonly #mostBytes: number;

  constructor(limits: ShareLimits, isManager: (owner: string) => boolean) {
    const part = (bytes: number) => Math.floor(bytes * PART_OF_LARGE);
    const large = { each: part(limits.each), others: part(limits.others), manager: part(limits.manager) };
    this.#all = new Shares(limits, isManager);
    this.#large = new Shares(large, isManager);
    this.#mostBytes = large.each;
  }

  /** The bytes that it counts for; undefined where there is no room. What is larger than a share counts as one: it would wait for ever. */
  take(owner: string, { elements, bytes }: Undecoded): number | undefined {
    const heldBytes = Math.min(ELEMENT_BYTES * elements + BYTES_OF_BYTE * bytes, this.#mostBytes);
    if (heldBytes <= SMALL_BYTES) return this.#all.take(owner, heldBytes) ? heldBytes : undefined;
    if (!this.#large.take(owner, heldBytes)) return undefined;
    if (this.#all.take(owner, heldBytes)) return heldBytes;
    this.#large.give(owner, heldBytes);
    return undefined;
  }

  give(owner: string, heldBytes: number): void {
    this.#all.give(owner, heldBytes);
    if (heldBytes > SMALL_BYTES) this.#large.give(owner, heldBytes);
  }
}
