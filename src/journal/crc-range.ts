// CRC-32 of any range of a file after one pass over it, as zlib's crc32_combine does it: the CRCs of all beginnings give that of
// every part. A damaged file can claim records of any length anywhere; summing each up again would be quadratic.
import { crc32 } from "node:zlib";

/** The CRC-32 polynomial, reflected. */
const POLYNOMIAL = 0xedb88320 | 0;

/** The product of two polynomials modulo that of CRC-32. */
function multiply(a: number, b: number): number {
  let product = 0;
  let factor = b | 0;
  // The highest bit is x^0.
  for (let left = a | 0; left !== 0; left <<= 1) {
    if (left < 0) product ^= factor;
    factor = (factor >>> 1) ^ (factor & 1 ? POLYNOMIAL : 0);
  }
  return product;
}

/** x to the power of 8 * 2^n: what that many bytes do. */
const POWERS: readonly number[] = (() => {
  const powers = [0x00800000]; // x^8
  for (let n = 1; n < 48; n++) powers.push(multiply(powers[n - 1] ?? 0, powers[n - 1] ?? 0));
  return powers;
})();

/**
 * The CRC-32 of A and B one after the other, by that of each and B's length in bytes. It is its own inverse: by those of A and of
 * both it gives that of B.
 */
export function combineCrc(a: number, b: number, bytesOfB: number): number {
  let shifted = a;
  for (let [left, n] = [bytesOfB, 0]; left > 0; left = Math.floor(left / 2), n++) {
    if (left % 2 === 1) shifted = multiply(POWERS[n] ?? 0, shifted);
  }
  return (shifted ^ b) >>> 0;
}

/** Bytes from which `CrcRanges` starts again. */
export const CRC_BLOCK_BYTES = 512;

/** The CRCs of a file's beginnings, one for each block: 8 KiB of them for a MiB. */
export class CrcRanges {
  readonly #beginnings: Uint32Array;
  #blocks = 0;

  constructor(sizeBytes: number) {
    this.#beginnings = new Uint32Array(Math.floor(sizeBytes / CRC_BLOCK_BYTES) + 1);
  }

  /** The next bytes of the file: whole blocks, but for its end. */
  add(bytes: Buffer): void {
    for (let at = 0; at + CRC_BLOCK_BYTES <= bytes.length; at += CRC_BLOCK_BYTES) {
      const before = this.#beginnings[this.#blocks] ?? 0;
      this.#blocks += 1;
      this.#beginnings[this.#blocks] = crc32(bytes.subarray(at, at + CRC_BLOCK_BYTES), before);
    }
  }

  /** Of the file's first bytes; `tail` are those of them behind the last whole block. */
  beginning(lengthBytes: number, tail: Buffer): number {
    return crc32(tail, this.#beginnings[Math.floor(lengthBytes / CRC_BLOCK_BYTES)] ?? 0);
  }
}
