// A record on disk: "NSJ", a version byte, the payload's length and a CRC-32 of all the rest (both 32 bits, little-endian),
// the payload. Each record stands for itself: what is legible behind a damaged one is found again by its first bytes.
import { crc32 } from "node:zlib";
import { JournalError } from "./error.ts";

const MAGIC = Buffer.from("NSJ");
const VERSION = 1;
const LENGTH_AT = 4;
const CRC_AT = 8;
const HEADER_BYTES = 12;

/** One record, ready to be appended. */
export function encodeFrame(payload: Uint8Array): Buffer {
  const frame = Buffer.alloc(HEADER_BYTES + payload.length);
  MAGIC.copy(frame);
  frame.writeUInt8(VERSION, MAGIC.length);
  frame.writeUInt32LE(payload.length, LENGTH_AT);
  frame.set(payload, HEADER_BYTES);
  frame.writeUInt32LE(checksum(frame), CRC_AT);
  return frame;
}

/**
 * Every legible record in order, and how many bytes belong to none.
 * @throws {JournalError} newer-version when a sound record has a version that is not known here.
 */
export function decodeFrames(bytes: Buffer): { readonly payloads: readonly Buffer[]; readonly damagedBytes: number } {
  const payloads: Buffer[] = [];
  let damagedBytes = 0;
  for (let at = 0; at < bytes.length; ) {
    const frame = frameAt(bytes, at);
    if (frame) {
      payloads.push(frame.subarray(HEADER_BYTES));
      at += frame.length;
      continue;
    }
    const next = bytes.indexOf(MAGIC, at + 1);
    const end = next < 0 ? bytes.length : next;
    damagedBytes += end - at;
    at = end;
  }
  return { payloads, damagedBytes };
}

function frameAt(bytes: Buffer, at: number): Buffer | undefined {
  if (bytes.length - at < HEADER_BYTES || MAGIC.compare(bytes, at, at + MAGIC.length) !== 0) return undefined;
  const end = at + HEADER_BYTES + bytes.readUInt32LE(at + LENGTH_AT);
  if (end > bytes.length) return undefined;
  const frame = bytes.subarray(at, end);
  if (frame.readUInt32LE(CRC_AT) !== checksum(frame)) return undefined;
  const version = frame.readUInt8(MAGIC.length);
  if (version > VERSION) throw new JournalError({ kind: "newer-version", version, known: VERSION });
  return frame;
}

function checksum(frame: Buffer): number {
  return crc32(frame.subarray(HEADER_BYTES), crc32(frame.subarray(0, CRC_AT)));
}
