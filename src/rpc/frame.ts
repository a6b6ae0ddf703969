import { RpcError } from "./status.ts";

// A gRPC message on the wire: one byte (1 = compressed), four bytes of length, the message (grpc doc/PROTOCOL-HTTP2.md).
const PREFIX_BYTES = 5;

/** Room that is made for a message before its bytes are there: a peer may announce much and send nothing. */
const FIRST_ROOM_BYTES = 16 * 1024;

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
  readonly #what: string;
  readonly #limitBytes: number;
  readonly #prefix = Buffer.alloc(PREFIX_BYTES);
  #prefixBytes = 0;
  #body = new Uint8Array(0);
  #bodyBytes = 0;

  /** `what` it reads, for errors: "a request of /package.Service/Method". */
  constructor(what: string, limitBytes: number) {
    this.#what = what;
    this.#limitBytes = limitBytes;
  }

  /** True when no part of a message waits for its rest. */
  get isEmpty(): boolean {
    return this.#prefixBytes === 0;
  }

  /**
   * Takes bytes and gives the messages that are whole now. They are copies: nothing that is decoded from them keeps a
   * read buffer alive.
   * @throws {RpcError} RESOURCE_EXHAUSTED as soon as a prefix announces more than the limit; UNIMPLEMENTED when it is compressed.
   */
  push(chunk: Uint8Array): Uint8Array[] {
    const messages: Uint8Array[] = [];
    for (let at = 0; at < chunk.length; ) {
      if (this.#prefixBytes < PREFIX_BYTES) at += this.#takePrefix(chunk.subarray(at));
      if (this.#prefixBytes < PREFIX_BYTES) break;
      at += this.#takeBody(chunk.subarray(at));
      if (this.#bodyBytes < this.#length()) break;
      messages.push(this.#body.subarray(0, this.#bodyBytes));
      this.#body = new Uint8Array(0);
      this.#prefixBytes = 0;
      this.#bodyBytes = 0;
    }
    return messages;
  }

  #length(): number {
    return this.#prefix.readUInt32BE(1);
  }

  #takePrefix(bytes: Uint8Array): number {
    const taken = bytes.subarray(0, PREFIX_BYTES - this.#prefixBytes);
    this.#prefix.set(taken, this.#prefixBytes);
    this.#prefixBytes += taken.length;
    if (this.#prefixBytes === PREFIX_BYTES) this.#checkPrefix();
    return taken.length;
  }

  #checkPrefix(): void {
    if (this.#prefix.readUInt8(0) !== 0) {
      throw new RpcError("UNIMPLEMENTED", "Cannot read a compressed message: no compression was agreed on");
    }
    if (this.#length() > this.#limitBytes) {
      throw new RpcError(
        "RESOURCE_EXHAUSTED",
        `Cannot take ${this.#what} of ${this.#length()} bytes: the limit is ${this.#limitBytes} bytes`,
      );
    }
  }

  #takeBody(bytes: Uint8Array): number {
    const taken = bytes.subarray(0, this.#length() - this.#bodyBytes);
    const filled = this.#bodyBytes + taken.length;
    if (filled > this.#body.length) {
      const room = Math.max(filled, 2 * this.#body.length, FIRST_ROOM_BYTES);
      const larger = new Uint8Array(Math.min(room, this.#length()));
      larger.set(this.#body.subarray(0, this.#bodyBytes));
      this.#body = larger;
    }
    this.#body.set(taken, this.#bodyBytes);
    this.#bodyBytes = filled;
    return taken.length;
  }
}
