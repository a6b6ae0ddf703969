import { type ClientHttp2Session, type ClientHttp2Stream, constants } from "node:http2";
import { guarded } from "../async/index.ts";
import { encodeFrame, FrameReader } from "./frame.ts";
import { decodeStatusMessage, statusFromHttp, statusFromReset } from "./http2/status-headers.ts";
import { type Metadata, readMetadata } from "./metadata.ts";
import { RpcError, statusFromNumber } from "./status.ts";

/** The peer has not begun to work on the call: it may be tried again elsewhere. */
export class Untouched extends RpcError {
  constructor(message: string, options?: ErrorOptions) {
    super("UNAVAILABLE", message, options);
  }
}

/** What goes out, and who hears what comes back. */
export interface ClientCallOptions {
  readonly session: ClientHttp2Session;
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly request: Uint8Array;
  /** "/package.Service/Method" */
  readonly path: string;
  readonly maxMessageBytes: number;
  /** Each message in its order. After `pause()` none comes but those already in hand. */
  onMessage(message: Uint8Array): void;
  /** Once, after the last message. `error` is undefined when the status was OK. */
  onEnd(end: { readonly error: RpcError | undefined; readonly metadata: Metadata }): void;
}

/** A call under way. */
export interface ClientCall {
  /** Gives the call up: the peer is told, and `onEnd` gets this error. */
  cancel(error: RpcError): void;
  pause(): void;
  resume(): void;
}

/**
 * Sends a request with one message and listens to its answer. The listeners are there before the first byte comes:
 * over a stream of our own all frames of one read arrive without a pause (nodejs/node#65677).
 * @throws {Untouched} when the session takes no call any more.
 */
export function startClientCall(options: ClientCallOptions): ClientCall {
  const stream = request(options);
  const frames = new FrameReader(`an answer of ${options.path}`, options.maxMessageBytes);
  let headers: readonly string[] = [];
  let trailers: readonly string[] = [];
  let hasEnded = false;
  const end = (error: RpcError | undefined) => {
    if (hasEnded) return;
    hasEnded = true;
    options.onEnd({ error, metadata: readMetadata(headers, trailers) });
  };
  const cancel = (why: RpcError) => {
    stream.close(constants.NGHTTP2_CANCEL);
    end(why); // not at the stream's close: that waits for a peer that does not read, for ever if need be
  };
  const broke = (cause: Error) =>
    cancel(new RpcError("INTERNAL", `the answer could not be taken: ${cause.message}`, { cause }));
  const headersCame = (_fields: object, _flags: number, raw: readonly string[]) => {
    headers = raw;
  };
  const trailersCame = (_fields: object, _flags: number, raw: readonly string[]) => {
    trailers = raw;
  };
  const dataCame = (chunk: Buffer) => {
    if (hasEnded) return;
    try {
      for (const message of frames.push(chunk)) options.onMessage(message);
    } catch (cause) {
      if (!(cause instanceof RpcError)) throw cause;
      cancel(cause);
    }
  };
  const closed = () => end(statusOf(stream, headers, trailers, options.session));
  stream.on("response", guarded("http2-stream", headersCame, broke));
  stream.on("trailers", guarded("http2-stream", trailersCame, broke));
  stream.on("data", guarded("http2-stream", dataCame, broke));
  // A peer that refuses a request before it has all of it answers and reads no more: its close would be waited for in vain.
  const answered = () => {
    if (last(trailers, "grpc-status") === undefined && last(headers, "grpc-status") === undefined) return;
    end(statusOf(stream, headers, trailers, options.session));
    if (!stream.writableFinished) stream.close(constants.NGHTTP2_CANCEL);
  };
  stream.once("end", guarded("http2-stream", answered, broke));
  stream.on("error", () => {}); // "close" follows with the code
  stream.once("close", guarded("http2-stream", closed, broke));
  stream.end(encodeFrame(options.request));
  return { cancel, pause: () => void stream.pause(), resume: () => void stream.resume() };
}

function request({ session, headers }: ClientCallOptions): ClientHttp2Stream {
  try {
    return session.request(headers as Record<string, string | string[]>, { endStream: false });
  } catch (cause) {
    throw new Untouched(`the connection takes no call: ${(cause as Error).message}`, { cause });
  }
}

/** The status of a call that has ended: from its trailers, from a header block that was all there was, or from how it broke. */
function statusOf(
  stream: ClientHttp2Stream,
  headers: readonly string[],
  trailers: readonly string[],
  session: ClientHttp2Session,
): RpcError | undefined {
  const number = last(trailers, "grpc-status") ?? last(headers, "grpc-status");
  if (number !== undefined) {
    if (number === "0") return undefined;
    const message = last(trailers, "grpc-message") ?? last(headers, "grpc-message") ?? "";
    return new RpcError(statusFromNumber(Number(number)), decodeStatusMessage(message));
  }
  const httpStatus = last(headers, ":status");
  if (httpStatus !== undefined && httpStatus !== "200") {
    return new RpcError(
      statusFromHttp(Number(httpStatus)),
      `the peer answered with HTTP status ${httpStatus}, not gRPC`,
    );
  }
  const code = stream.rstCode ?? 0;
  if (code === constants.NGHTTP2_REFUSED_STREAM && headers.length === 0)
    return new Untouched("the peer refused the call");
  // Node closes the streams of a lost session with CANCEL: nobody cancelled.
  if (session.destroyed || session.closed)
    return new RpcError("UNAVAILABLE", "the connection was lost during the call");
  if (code === constants.NGHTTP2_NO_ERROR) return new RpcError("INTERNAL", "the answer ended without a status");
  return new RpcError(statusFromReset(code), `the peer reset the call (HTTP/2 error ${code})`);
}

function last(block: readonly string[], key: string): string | undefined {
  for (let at = block.length - 2; at >= 0; at -= 2) if (block[at] === key) return block[at + 1];
  return undefined;
}
