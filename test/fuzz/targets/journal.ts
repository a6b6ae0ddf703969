import { crc32 } from "node:zlib";
import { JournalError } from "../../../src/journal/error.ts";
import { findRecords } from "../../../src/journal/found-records.ts";
import { encodeFrame } from "../../../src/journal/frame.ts";
import { hold, type Target } from "../target.ts";

const record = (...parts: readonly unknown[]) => encodeFrame(Buffer.from(JSON.stringify(parts)));

/** The payload of each sound record of the bytes, wherever it begins: what may be read, found in the plainest way. */
function payloadsOf(bytes: Buffer): ReadonlySet<string> {
  const payloads = new Set<string>();
  for (let at = bytes.indexOf("NSJ"); at >= 0 && at + 12 <= bytes.length; at = bytes.indexOf("NSJ", at + 1)) {
    const end = at + 12 + bytes.readUInt32LE(at + 4);
    if (end > bytes.length) continue;
    const payload = bytes.subarray(at + 12, end);
    if (crc32(payload, crc32(bytes.subarray(at, at + 8))) === bytes.readUInt32LE(at + 8)) payloads.add(String(payload));
  }
  return payloads;
}

function keyOf(payload: string): unknown {
  try {
    return (JSON.parse(payload) as unknown[])[0];
  } catch {
    return undefined;
  }
}

/** Whatever stands between the frame, which is sound. */
function framed(name: string, says: string, frame: (input: Buffer) => Buffer, seeds: readonly Uint8Array[]): Target {
  return {
    name,
    says,
    seeds,
    words: ["NSJ\x01", '["a",1]', '"', "\\", "[", "]", ",", "\x00\x00\x00\x00"],
    refusals: [JournalError],
    async run(input) {
      const bytes = frame(input);
      const read = async (position: number, length: number) => bytes.subarray(position, position + length);
      const found = await findRecords<unknown>({ sizeBytes: bytes.length, read });
      hold(
        found.damagedBytes >= 0 && found.damagedBytes <= bytes.length,
        () => `${found.damagedBytes} bytes are damaged`,
      );
      if (bytes.length > 8192) return "long";
      const payloads = [...payloadsOf(bytes)];
      for (const key of found.keys) {
        const value = await found.read(key);
        if (value === undefined) continue;
        const isThere = payloads.some((payload) => {
          if (keyOf(payload) !== key) return false;
          return JSON.stringify((JSON.parse(payload) as unknown[])[1]) === JSON.stringify(value);
        });
        hold(isThere, () => `the entry ${JSON.stringify(key)} is invented`);
      }
      return `${Math.min(found.keys.length, 5)} ${found.damagedBytes > 0}`;
    },
  };
}

const file = Buffer.concat([
  record("a", 1),
  record('NSJ\u0001 "quoted" \\', "NSJ inside"),
  record("b", { deep: [1, "é"] }),
  record("b"),
  record("c", null),
]);

export const journalTargets: readonly Target[] = [
  framed("journal", "the journal's file, damaged anywhere", (input) => input, [
    file,
    record("a", file.toString("latin1")),
  ]),
  framed("journal-entry", "one record that is sound, of another program", (input) => encodeFrame(input), [
    Buffer.from('["a",{"x":[1,2]}]'),
    Buffer.from('["\\u0061\\\\"]'),
    Buffer.from('["a"]'),
  ]),
];
