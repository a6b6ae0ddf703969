import assert from "node:assert/strict";
import { test } from "node:test";
import { JournalError } from "./error.ts";
import { decodeFrames, encodeFrame } from "./frame.ts";

const texts = ["one", "", "NSJ inside a payload", "four"];
const frames = texts.map((text) => encodeFrame(Buffer.from(text)));
const file = Buffer.concat(frames);

const read = (bytes: Buffer) => {
  const { payloads, damagedBytes } = decodeFrames(bytes);
  return { texts: payloads.map(String), damagedBytes };
};

test("decodeFrames() reads back what was written", () => {
  assert.deepEqual(read(file), { texts, damagedBytes: 0 });
  assert.deepEqual(read(Buffer.alloc(0)), { texts: [], damagedBytes: 0 });
});

test("decodeFrames() keeps every whole record, wherever the file is cut off", () => {
  for (let length = 0; length < file.length; length++) {
    let whole = 0;
    let bytes = 0;
    for (; bytes + (frames[whole]?.length ?? Infinity) <= length; whole++) bytes += frames[whole]?.length ?? 0;
    assert.deepEqual(read(file.subarray(0, length)), { texts: texts.slice(0, whole), damagedBytes: length - bytes });
  }
});

test("decodeFrames() loses one record to a flipped bit, and never reads a wrong one", () => {
  for (let bit = 0; bit < file.length * 8; bit++) {
    const damaged = Buffer.from(file);
    damaged.writeUInt8(damaged.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    const { payloads, damagedBytes } = decodeFrames(damaged);
    const left = payloads.map(String);
    let hit = 0;
    for (let end = frames[0]?.length ?? 0; end <= bit >> 3; end += frames[hit]?.length ?? 0) hit++;
    assert.deepEqual(left, texts.toSpliced(hit, 1), `bit ${bit}`);
    assert.equal(damagedBytes, frames[hit]?.length);
  }
});

test("decodeFrames() refuses a sound record of a later version", () => {
  // The checksum of a version 2 record, as a later forwarder would make it.
  const later = Buffer.from("4e534a02020000006de153a87b7d", "hex");
  assert.throws(
    () => decodeFrames(Buffer.concat([file, later])),
    (error) => error instanceof JournalError && error.fault.kind === "newer-version" && error.fault.version === 2,
  );
});
