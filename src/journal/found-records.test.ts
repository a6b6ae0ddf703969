import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import { JournalError } from "./error.ts";
import { findRecords } from "./found-records.ts";
import { encodeFrame } from "./frame.ts";
import type { Json } from "./json.ts";

const recordOf = (...record: readonly [key: string, value?: Json]) => encodeFrame(Buffer.from(JSON.stringify(record)));

/** A file in memory that counts what is read of it. */
function fileOf(content: Buffer) {
  const counted = { reads: 0, bytes: 0, longest: 0 };
  const read = async (position: number, length: number) => {
    const bytes = content.subarray(position, position + length);
    counted.reads += 1;
    counted.bytes += bytes.length;
    counted.longest = Math.max(counted.longest, bytes.length);
    return bytes;
  };
  return { sizeBytes: content.length, read, counted };
}

async function found(content: Buffer) {
  const records = await findRecords<Json>(fileOf(content));
  const values: Record<string, Json | undefined> = {};
  for (const key of records.keys) values[key] = await records.read(key);
  return { values, damagedBytes: records.damagedBytes };
}

// Escapes, a key that resembles a record, a value that holds one, and one that is longer than what is read of it at first.
const long = "x".repeat(40_000);
const records = [
  recordOf("a", 1),
  recordOf('NSJ\u0001 "quoted" \\', "NSJ inside a payload"),
  recordOf(`${long}é`, { deep: [long] }),
  recordOf("b", null),
];
const expected: Record<string, Json> = {
  a: 1,
  'NSJ\u0001 "quoted" \\': "NSJ inside a payload",
  [`${long}é`]: { deep: [long] },
  b: null,
};
const keys = Object.keys(expected);
const short = [records[0], records[1], records[3]] as Buffer[];
const shortKeys = [keys[0], keys[1], keys[3]] as string[];

test("findRecords() reads back what was written", async () => {
  assert.deepEqual(await found(Buffer.concat(records)), { values: expected, damagedBytes: 0 });
  assert.deepEqual(await found(Buffer.alloc(0)), { values: {}, damagedBytes: 0 });
});

test("findRecords() gives the latest value of each key, and no key that was dropped", async () => {
  const file = [recordOf("a", 1), recordOf("b", 1), recordOf("a", 2), recordOf("b"), recordOf("c"), recordOf("c", 3)];
  assert.deepEqual(await found(Buffer.concat(file)), { values: { a: 2, c: 3 }, damagedBytes: 0 });
});

test("findRecords() keeps every whole record, wherever the file is cut off", async () => {
  const file = Buffer.concat(short);
  for (let length = 0; length < file.length; length++) {
    let whole = 0;
    let bytes = 0;
    for (; bytes + (short[whole]?.length ?? Infinity) <= length; whole++) bytes += short[whole]?.length ?? 0;
    const { values, damagedBytes } = await found(file.subarray(0, length));
    assert.deepEqual([Object.keys(values), damagedBytes], [shortKeys.slice(0, whole), length - bytes]);
  }
});

test("findRecords() loses one record to a flipped bit, and never reads a wrong one", async () => {
  const file = Buffer.concat(short);
  for (let bit = 0; bit < file.length * 8; bit++) {
    const damaged = Buffer.from(file);
    damaged.writeUInt8(damaged.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    let hit = 0;
    for (let end = short[0]?.length ?? 0; end <= bit >> 3; end += short[hit]?.length ?? 0) hit++;
    const { values, damagedBytes } = await found(damaged);
    const left = shortKeys.toSpliced(hit, 1);
    assert.deepEqual(values, Object.fromEntries(left.map((key) => [key, expected[key]])), `bit ${bit}`);
    assert.equal(damagedBytes, short[hit]?.length);
  }
});

test("findRecords() finds records behind damage of any length, at any place of what it reads at once", async () => {
  const [record = Buffer.alloc(0)] = records;
  for (const length of [1, 2, 511, 512, 16_382, 16_383, 16_384, 16_385, 524_288, 600_001]) {
    const { values, damagedBytes } = await found(Buffer.concat([Buffer.alloc(length, "N"), record, Buffer.alloc(3)]));
    assert.deepEqual([values, damagedBytes], [{ a: 1 }, length + 3], `${length} bytes`);
  }
});

test("findRecords() takes sound records that we never wrote for damage", async () => {
  const strange = ["", "{}", '["open', "[1,2]", '["\\x",1]'].map((text) => encodeFrame(Buffer.from(text)));
  const { values, damagedBytes } = await found(Buffer.concat([...strange, recordOf("a", 1)]));
  assert.deepEqual([values, damagedBytes], [{ a: 1 }, 0 + 2 + 6 + 5 + 8]);
});

test("findRecords() refuses a sound record of a later version", async () => {
  // The checksum of a version 2 record, as a later forwarder would make it.
  const later = Buffer.from("4e534a02020000006de153a87b7d", "hex");
  await assert.rejects(
    findRecords(fileOf(Buffer.concat([...records, later]))),
    (error) => error instanceof JournalError && error.fault.kind === "newer-version" && error.fault.version === 2,
  );
});

/** Headers of records that are none, each of which claims all that is behind it. */
function crafted(count: number): Buffer {
  const file = Buffer.alloc(count * 12);
  for (let index = 0; index < count; index++) {
    const at = index * 12;
    file.write("NSJ\u0001", at, "latin1");
    file.writeUInt32LE(file.length - at - 12, at + 4);
    file.writeUInt32LE(crc32(`${index}`), at + 8);
  }
  return file;
}

test("findRecords() takes a step for each byte of crafted damage, however long what it claims is", async () => {
  const work = async (count: number) => {
    const file = fileOf(Buffer.concat([crafted(count), recordOf("a", 1)]));
    const { keys: left, damagedBytes } = await findRecords(file);
    assert.deepEqual([left, damagedBytes], [["a"], count * 12]);
    return file.counted;
  };
  const [small, large] = [await work(5_000), await work(20_000)];
  assert.ok(large.bytes <= 4.1 * small.bytes, `${small.bytes} bytes read, then ${large.bytes}`);
  assert.ok(large.bytes <= 3 * 20_000 * 12, `${large.bytes} bytes read of ${20_000 * 12}`);
});

test("findRecords() never reads more than a part of a large file at once, whatever its records", async () => {
  const big = recordOf("big", "x".repeat(20_000_000));
  const file = fileOf(Buffer.concat([big, big, recordOf("a", 1)]));
  assert.deepEqual((await findRecords(file)).keys, ["big", "a"]);
  assert.ok(file.counted.longest <= 524_288, `${file.counted.longest} bytes at once`);
  assert.ok(file.counted.bytes <= 1.1 * file.sizeBytes, `${file.counted.bytes} bytes of ${file.sizeBytes}`);
});

test("findRecords() counts a sound record that has no key as damaged, be it longer than what is read of it at first", async () => {
  for (const length of [3, 600, 5_000]) {
    const odd = encodeFrame(Buffer.alloc(length, "x"));
    const { values, damagedBytes } = await found(Buffer.concat([odd, recordOf("a", 1)]));
    assert.deepEqual([values, damagedBytes], [{ a: 1 }, length]);
  }
});
