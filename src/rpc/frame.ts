import { RpcError } from "./status.ts";

// A gRPC message on the wire: one byte (1 = compressed), four bytes of length, the message (grpc doc/PROTOCOL-HTTP2.md).
const PREFIX_BYTES = 5;

/** The message with its prefix, ready to be written. */
export function encodeFrame(message: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(PREFIX_BYTES + message.length);
  frame.writeUInt8(0, 0);
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, PREFIX_BYTES);
  return frame;
}

/** Puts messages together from the bytes of one stream, however they are cut. */
export class FrameReader {
  readonly #limitBytes: number;
  #chunks: Buffer[] = [];
  #held = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** True when no part of a message waits for its rest. */
  get isEmpty(): boolean {
    return this.#held === 0;
  }

  /**
   * Takes bytes and gives the messages that are whole now.
   * @throws {RpcError} RESOURCE_EXHAUSTED as soon as a prefix announces more than the limit, before anything is held for it.
   */
  push(chunk: Buffer): Uint8Array[] {
    this.#chunks.push(chunk);
    this.#held += chunk.length;
    const messages: Uint8Array[] = [];
    for (let message = this.#next(); message !== undefined; message = this.#next()) messages.push(message);
    return messages;
  }

  #next(): Uint8Array | undefined {
    if (this.#held < PREFIX_BYTES) return undefined;
    const prefix = this.#join(PREFIX_BYTES);
    const length = prefix.readUInt32BE(1);
    if (prefix.readUInt8(0) !== 0) {
      throw new RpcError("UNIMPLEMENTED", "Cannot read a compressed message: no compression was agreed on");
    }
    if (length > this.#limitBytes) {
      throw new RpcError(
        "RESOURCE_EXHAUSTED",
        `Cannot read a message of ${length} bytes: the limit is ${this.#limitBytes} bytes`,
      );
    }
    if (this.#held < PREFIX_BYTES + length) return undefined;
    const whole = this.#join(PREFIX_BYTES + length);
    this.#held -= PREFIX_BYTES + length;
    const rest = whole.subarray(PREFIX_BYTES + length);
    this.#chunks = rest.length > 0 ? [rest] : [];
    // A copy: what is decoded from it may be kept for long, and must not keep the whole read buffer alive.
    return new Uint8Array(whole.subarray(PREFIX_BYTES, PREFIX_BYTES + length));
  }

  /** Makes the first chunk at least so long. Joins all there is at once, so that the work stays linear in the bytes. */
  #join(bytes: number): Buffer {
    const first = this.#chunks[0] ?? Buffer.alloc(0);
    if (first.length >= bytes) return first;
    const joined = Buffer.concat(this.#chunks);
    this.#chunks = [joined];
    return joined;
  }
}
