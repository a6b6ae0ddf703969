import { type ClientHttp2Session, type ClientHttp2Stream, constants } from "node:http2";
import { guarded } from "../../async/index.ts";
import { readMetadata } from "../metadata.ts";
import { RpcError, statusFromNumber, Untouched } from "../status.ts";
import type { AnswerReader, ClientStream } from "../transport.ts";
import { decodeStatusMessage, statusFromHttp, statusFromReset } from "./status-headers.ts";

/**
 * Sends a request and reads its answer. The listeners are there before the first byte comes: over a stream of our own all
 * frames of one read arrive without a pause (nodejs/node#65677).
 * @throws {Untouched} when the session takes no call any more.
 */
export function openClientStream(
  session: ClientHttp2Session,
  headers: Readonly<Record<string, string | string[]>>,
  request: Uint8Array,
  reader: AnswerReader,
): ClientStream {
  return new Http2ClientStream(session, begin(session, headers), reader, request);
}

function begin(session: ClientHttp2Session, headers: Readonly<Record<string, string | string[]>>): ClientHttp2Stream {
  try {
    return session.request(headers, { endStream: false });
  } catch (cause) {
    throw new Untouched(`the connection takes no call: ${(cause as Error).message}`, { cause });
  }
}

class Http2ClientStream implements ClientStream {
  readonly #session: ClientHttp2Session;
  readonly #stream: ClientHttp2Stream;
  readonly #reader: AnswerReader;
  #headers: readonly string[] = [];
  #trailers: readonly string[] = [];

  constructor(session: ClientHttp2Session, stream: ClientHttp2Stream, reader: AnswerReader, request: Uint8Array) {
    this.#session = session;
    this.#stream = stream;
    this.#reader = reader;
    const failed = (error: Error) => reader.failed(error);
    const headers = (_fields: object, _flags: number, raw: readonly string[]) => {
      this.#headers = raw;
    };
    const trailers = (_fields: object, _flags: number, raw: readonly string[]) => {
      this.#trailers = raw;
    };
    const data = (piece: Buffer) => reader.data(piece);
    const answered = () => this.#answered();
    const closed = () => this.#ended();
    stream.on("response", guarded("http2-stream", headers, failed));
    stream.on("trailers", guarded("http2-stream", trailers, failed));
    stream.on("data", guarded("http2-stream", data, failed));
    stream.once("end", guarded("http2-stream", answered, failed));
    stream.on("error", () => {}); // "close" follows with the code
    stream.once("close", guarded("http2-stream", closed, failed));
    stream.end(request);
  }

  cancel(): void {
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  /** A peer that refuses a request before it has all of it answers and reads no more: its close would be waited for in vain. */
  #answered(): void {
    if (this.#field("grpc-status") === undefined) return;
    this.#ended();
    if (!this.#stream.writableFinished) this.cancel();
  }

  #ended(): void {
    this.#reader.ended(this.#status(), readMetadata(this.#headers, this.#trailers));
  }

  /** From the trailers, from a header block that was all there was, or from how the stream broke. */
  #status(): RpcError | undefined {
    const number = this.#field("grpc-status");
    if (number === "0") return undefined;
    if (number !== undefined)
      return new RpcError(statusFromNumber(Number(number)), decodeStatusMessage(this.#field("grpc-message") ?? ""));
    const httpStatus = last(this.#headers, ":status");
    if (httpStatus !== undefined && httpStatus !== "200") {
      const text = `the peer answered with HTTP status ${httpStatus}, not gRPC`;
      return new RpcError(statusFromHttp(Number(httpStatus)), text);
    }
    const code = this.#stream.rstCode ?? 0;
    if (code === constants.NGHTTP2_REFUSED_STREAM && this.#headers.length === 0)
      return new Untouched("the peer refused the call");
    // Node closes the streams of a lost session with CANCEL: no peer cancelled.
    if (this.#session.destroyed || this.#session.closed)
      return new RpcError("UNAVAILABLE", "the connection was lost during the call");
    if (code === constants.NGHTTP2_NO_ERROR) return new RpcError("INTERNAL", "the answer ended without a status");
    return new RpcError(statusFromReset(code), `the peer reset the call (HTTP/2 error ${code})`);
  }

  #field(key: string): string | undefined {
    return last(this.#trailers, key) ?? last(this.#headers, key);
  }
}

function last(block: readonly string[], key: string): string | undefined {
  for (let at = block.length - 2; at >= 0; at -= 2) if (block[at] === key) return block[at + 1];
  return undefined;
}
