// A record on disk: "NSJ", a version byte, the payload's length and a CRC-32 of all the rest (both 32 bits, little-endian),
// the payload. Each record is self-contained: what is legible behind a damaged one is found again by its first bytes.
import { crc32 } from "node:zlib";
import { combineCrc } from "./crc-range.ts";

export const MAGIC = Buffer.from("NSJ");
export const VERSION = 1;
export const HEADER_BYTES = 12;
const LENGTH_AT = 4;
const CRC_AT = 8;

/** One record, ready to be appended. */
export function encodeFrame(payload: Uint8Array): Buffer {
  const frame = Buffer.alloc(HEADER_BYTES + payload.length);
  MAGIC.copy(frame);
  frame.writeUInt8(VERSION, MAGIC.length);
  frame.writeUInt32LE(payload.length, LENGTH_AT);
  frame.set(payload, HEADER_BYTES);
  frame.writeUInt32LE(crc32(payload, crc32(frame.subarray(0, CRC_AT))), CRC_AT);
  return frame;
}

/** What the first bytes of a record say. */
interface FrameHeader {
  readonly version: number;
  readonly payloadBytes: number;
  /** True if this is the CRC-32 of the payload. */
  isSound(payloadCrc: number): boolean;
}

/** Undefined where no record begins. */
export function readHeader(bytes: Buffer): FrameHeader | undefined {
  if (bytes.length < HEADER_BYTES || MAGIC.compare(bytes, 0, MAGIC.length) !== 0) return undefined;
  const payloadBytes = bytes.readUInt32LE(LENGTH_AT);
  return {
    version: bytes.readUInt8(MAGIC.length),
    payloadBytes,
    isSound: (payloadCrc) =>
      bytes.readUInt32LE(CRC_AT) === combineCrc(crc32(bytes.subarray(0, CRC_AT)), payloadCrc, payloadBytes),
  };
}
