import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import { CRC_BLOCK_BYTES, CrcRanges, combineCrc } from "./crc-range.ts";

const bytes = Buffer.from(Array.from({ length: 5 * CRC_BLOCK_BYTES + 77 }, (_, index) => (index * 7919) >> 3));

test("combineCrc() gives the CRC of two parts one after the other, of any lengths", () => {
  for (const length of [0, 1, 2, 3, 511, 512, 513, bytes.length]) {
    for (const cut of [0, 1, length >> 1, length].filter((at) => at <= length)) {
      const [a, b] = [bytes.subarray(0, cut), bytes.subarray(cut, length)];
      assert.equal(combineCrc(crc32(a), crc32(b), b.length), crc32(bytes.subarray(0, length)), `${cut} of ${length}`);
    }
  }
});

test("combineCrc() counts lengths beyond 32 bits", () => {
  const zeros = (bytesOfB: number) => combineCrc(crc32("a"), 0, bytesOfB);
  // What 2^33 bytes do is what 2^32 bytes do, twice.
  assert.equal(zeros(2 ** 33), combineCrc(zeros(2 ** 32), 0, 2 ** 32));
  assert.notEqual(zeros(2 ** 33), zeros(2 ** 32));
});

test("CrcRanges gives the CRC of every range, by the bytes behind the last whole block", () => {
  const ranges = new CrcRanges(bytes.length);
  ranges.add(bytes.subarray(0, 2 * CRC_BLOCK_BYTES));
  ranges.add(bytes.subarray(2 * CRC_BLOCK_BYTES));
  const until = (end: number) => ranges.beginning(end, bytes.subarray(end - (end % CRC_BLOCK_BYTES), end));
  for (let begin = 0; begin <= bytes.length; begin += 97) {
    for (let end = begin; end <= bytes.length; end += 89) {
      assert.equal(combineCrc(until(begin), until(end), end - begin), crc32(bytes.subarray(begin, end)));
    }
  }
  assert.equal(until(bytes.length), crc32(bytes));
});
