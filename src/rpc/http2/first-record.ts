import type { Duplex } from "node:stream";
import { guarded } from "../../async/index.ts";

/** RFC 8446, 5.1: type, version, two bytes of length; 22 is a handshake, and a record holds at most so much. */
const HEADER_BYTES = 5;
const HANDSHAKE = 22;
const LONGEST_RECORD_BYTES = 16_384;

/**
 * Waits until the first record of TLS is there, or what cannot be one, and leaves it in the stream. Until then a connection costs
 * its socket and nothing more: setting TLS up takes 1 to 2 ms of the main thread.
 * @throws the signal's reason, or an error when the stream ends before.
 */
export async function firstRecord(stream: Duplex, signal: AbortSignal): Promise<void> {
  const over = Promise.withResolvers<void>();
  let bytes = Buffer.alloc(0);
  const closed = guarded("tls", () => over.reject(new Error("the peer closed the connection before it said anything")));
  const aborted = guarded("abort", () => over.reject(signal.reason));
  const read = guarded(
    "tls",
    () => {
      const piece = stream.read() as Buffer | null;
      if (piece) bytes = Buffer.concat([bytes, piece]);
      if (isComplete(bytes) || stream.readableEnded) over.resolve();
    },
    over.reject,
  );
  stream.on("readable", read);
  stream.once("close", closed);
  stream.once("end", over.resolve);
  signal.addEventListener("abort", aborted, { once: true });
  try {
    signal.throwIfAborted();
    if (stream.destroyed) closed();
    await over.promise;
  } finally {
    stream.off("readable", read);
    stream.off("close", closed);
    stream.off("end", over.resolve);
    signal.removeEventListener("abort", aborted);
  }
  if (bytes.length > 0 && !stream.readableEnded) stream.unshift(bytes);
}

function isComplete(bytes: Buffer): boolean {
  if (bytes.length > 0 && bytes[0] !== HANDSHAKE) return true;
  if (bytes.length < HEADER_BYTES) return false;
  const length = bytes.readUInt16BE(3);
  return length > LONGEST_RECORD_BYTES || bytes.length >= HEADER_BYTES + length;
}
