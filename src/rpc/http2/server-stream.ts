import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { guarded } from "../../async/index.ts";
import { type Headers, type Metadata, readMetadata } from "../metadata.ts";
import { RpcError } from "../status.ts";
import type { ServerStream, StreamReader } from "../transport.ts";
import { statusHeaders } from "./status-headers.ts";
import { parseTimeout } from "./timeout.ts";

/** A call on its HTTP/2 stream. */
export function openServerStream(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  rawHeaders: readonly string[],
): ServerStream {
  return new Http2ServerStream(stream, headers, readMetadata(rawHeaders));
}

class Http2ServerStream implements ServerStream {
  readonly path: string;
  readonly metadata: Metadata;
  readonly timeoutMs: number | undefined;
  readonly refusal: RpcError | undefined;
  readonly closed: Promise<void>;
  answerMetadata: Headers = {};
  readonly #stream: ServerHttp2Stream;
  readonly #httpStatus: number;
  #isEnded = false;

  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, metadata: Metadata) {
    const problem = problemOf(headers);
    this.path = String(headers[":path"]);
    this.metadata = metadata;
    this.timeoutMs = parseTimeout(String(headers["grpc-timeout"] ?? ""));
    this.refusal = problem?.error;
    this.#httpStatus = problem?.httpStatus ?? 200;
    this.#stream = stream;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    stream.on("error", () => {}); // "close" follows and is what counts
    const closed = () => resolve();
    stream.once("close", guarded("http2-stream", closed, closed));
  }

  /** Listens from the start: an iterator attached late loses data (nodejs/node#65677). */
  read(reader: StreamReader): void {
    const failed = (error: Error) => reader.failed(error);
    const data = (piece: Buffer) => reader.data(piece);
    const ended = () => reader.ended();
    this.#stream.on("data", guarded("http2-stream", data, failed));
    this.#stream.once("end", guarded("http2-stream", ended, failed));
  }

  write(piece: Uint8Array): Promise<void> {
    if (this.#isOver()) return Promise.resolve();
    if (!this.#stream.headersSent) this.#stream.respond(this.#headers(), { waitForTrailers: true });
    return new Promise((resolve) => {
      this.#stream.once("close", resolve);
      const left = guarded("http2-stream", () => {
        this.#stream.off("close", resolve);
        resolve();
      });
      this.#stream.write(piece, left);
    });
  }

  end(error?: RpcError): void {
    if (this.#isOver()) return;
    this.#isEnded = true;
    const status = statusHeaders(error);
    if (this.#stream.headersSent) this.#endWith(status);
    else this.#endAtOnce(status);
  }

  #endWith(status: Readonly<Record<string, string>>): void {
    const send = () => this.#stream.sendTrailers(status);
    const broke = () => void this.#stream.destroy();
    this.#stream.once("wantTrailers", guarded("http2-stream", send, broke));
    this.#stream.end();
  }

  refuse(): void {
    if (this.#isOver()) return;
    this.#isEnded = true;
    this.#stream.close(constants.NGHTTP2_REFUSED_STREAM);
  }

  #isOver(): boolean {
    return this.#isEnded || this.#stream.destroyed || this.#stream.closed;
  }

  #headers() {
    return { ":status": this.#httpStatus, "content-type": "application/grpc", ...this.answerMetadata };
  }

  /** Headers and status in one block: an answer without a message. */
  #endAtOnce(status: Readonly<Record<string, string>>): void {
    this.#stream.respond({ ...this.#headers(), ...status }, { endStream: true });
    if (this.#stream.readableEnded) return;
    // The caller may still be sending: read past it, and have it stop once the answer is out.
    this.#stream.resume();
    this.#stream.close(constants.NGHTTP2_NO_ERROR);
  }
}

/** Why a request is not gRPC that we speak (grpc doc/PROTOCOL-HTTP2.md); undefined when it is. */
function problemOf(headers: IncomingHttpHeaders): { httpStatus: number; error: RpcError } | undefined {
  if (headers[":method"] !== "POST") {
    return { httpStatus: 405, error: new RpcError("INTERNAL", `Cannot serve method ${headers[":method"]}: want POST`) };
  }
  if (!/^application\/grpc($|[+;])/.test(headers["content-type"] ?? "")) {
    return {
      httpStatus: 415,
      error: new RpcError("INTERNAL", "Cannot serve this content type: want application/grpc"),
    };
  }
  const encoding = headers["grpc-encoding"] ?? "identity";
  if (encoding !== "identity") {
    return {
      httpStatus: 200,
      error: new RpcError("UNIMPLEMENTED", `Cannot read ${encoding}: only identity is spoken`),
    };
  }
  const timeout = headers["grpc-timeout"];
  if (timeout !== undefined && parseTimeout(String(timeout)) === undefined) {
    return { httpStatus: 200, error: new RpcError("INTERNAL", `Cannot read grpc-timeout ${JSON.stringify(timeout)}`) };
  }
  return undefined;
}
