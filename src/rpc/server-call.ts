import { setMaxListeners } from "node:events";
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { type Clock, guarded, type Timer } from "../async/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { Connection } from "./connection.ts";
import { encodeFrame, FrameReader } from "./frame.ts";
import type { Call, RpcHandler } from "./handler.ts";
import { type Metadata, readMetadata, toHeaders } from "./metadata.ts";
import type { ByteBudget } from "./owners.ts";
import { encodeStatusMessage, NotBegun, RpcError, statusNumber, toRpcError } from "./status.ts";
import { parseTimeout } from "./timeout.ts";

/** What the calls of one connection share. */
export interface ServerCallContext {
  readonly connection: Connection;
  readonly handlers: ReadonlyMap<string, RpcHandler>;
  readonly maxMessageBytes: number;
  /** Of requests whose rest is awaited. */
  readonly budget: ByteBudget;
  /** Why no call is taken at present. */
  readonly refusal?: RpcError | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

/** A call that is being answered. */
export interface ServerCall {
  readonly isStreaming: boolean;
  /** Resolves when the call is over, whatever its end. */
  readonly done: Promise<void>;
  /** Ends it from our side, with a status. */
  end(error: RpcError): void;
}

/** Answers one HTTP/2 stream. Never throws: whatever goes wrong ends this call and nothing else. */
export function serveCall(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  rawHeaders: readonly string[],
  context: ServerCallContext,
): ServerCall {
  const handler = context.handlers.get(String(headers[":path"]));
  const answer = new Answer(stream);
  const done = Promise.withResolvers<void>();
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  let timer: Timer | undefined;
  stream.on("error", () => {}); // "close" follows and is what counts
  const closed = () => {
    timer?.cancel();
    controller.abort(new RpcError("CANCELLED", "the caller has cancelled the call, or is gone"));
    done.resolve();
  };
  stream.once("close", guarded("http2-stream", closed, closed));
  const end = (error: RpcError) => {
    controller.abort(error);
    answer.fail(error);
  };
  const refusal = refuse(headers);
  if (refusal !== undefined) {
    answer.refuse(refusal.httpStatus, refusal.error);
  } else if (context.refusal) {
    end(context.refusal);
  } else if (handler === undefined) {
    end(new RpcError("UNIMPLEMENTED", `There is no method ${JSON.stringify(headers[":path"])} here`));
  } else {
    const deadlineMs = parseTimeout(String(headers["grpc-timeout"] ?? ""));
    if (deadlineMs !== undefined) {
      const late = () => end(new RpcError("DEADLINE_EXCEEDED", `The caller's limit of ${deadlineMs} ms has passed`));
      const broke = () => void stream.destroy();
      timer = context.clock.after(deadlineMs, guarded("timer", late, broke));
    }
    const metadata = readMetadata(rawHeaders);
    const call = describeCall(context.connection, answer, { signal: controller.signal, deadlineMs, metadata });
    readRequest(stream, handler, context)
      .then((request) => run(handler, request, call, answer))
      .catch((error: unknown) => {
        const failure = toRpcError(error);
        context.log.debug("rpc-failed", { path: handler.path, code: failure.code, error: failure.message });
        if (failure instanceof NotBegun) answer.refuseStream();
        else answer.fail(failure);
      });
  }
  return { isStreaming: handler?.kind === "stream", done: done.promise, end };
}

/** Why a request is not gRPC that we speak (grpc doc/PROTOCOL-HTTP2.md); undefined when it is. */
function refuse(headers: IncomingHttpHeaders): { httpStatus: number; error: RpcError } | undefined {
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

interface CallFacts {
  readonly signal: AbortSignal;
  readonly deadlineMs: number | undefined;
  readonly metadata: Metadata;
}

function describeCall(connection: Connection, answer: Answer, facts: CallFacts): Call {
  return {
    connection,
    ...facts,
    setResponseMetadata: (key, value) => answer.addHeader(key, value),
    sendFd: (fd) => connection.fds?.send(fd),
  };
}

async function run(handler: RpcHandler, request: Uint8Array, call: Call, answer: Answer): Promise<void> {
  if (call.signal.aborted) return;
  if (handler.kind === "unary") {
    const response = await handler.run(request, call);
    if (call.signal.aborted) return;
    await answer.message(response);
    return answer.succeed();
  }
  const messages = handler.run(request, call)[Symbol.asyncIterator]();
  let giveUp = () => {};
  const aborted = guarded("abort", () => giveUp());
  call.signal.addEventListener("abort", aborted, { once: true });
  // A promise for each wait: one for the whole call, in a race with each message, would keep all of them until its end.
  const nextOrGone = () =>
    new Promise<IteratorResult<Uint8Array> | undefined>((resolve, reject) => {
      giveUp = () => resolve(undefined);
      messages.next().then(resolve, reject);
    });
  try {
    while (!call.signal.aborted) {
      const next = await nextOrGone();
      if (next === undefined || call.signal.aborted) return;
      if (next.done === true) return answer.succeed();
      await answer.message(next.value);
    }
  } finally {
    // Not awaited: a handler that is stuck in a wait of its own must not hold the connection's shutdown.
    void Promise.resolve(messages.return?.()).catch(() => {});
  }
}

/** The one message of a request. Listens from the start: an iterator attached late loses data (nodejs/node#65677). */
function readRequest(
  stream: ServerHttp2Stream,
  { path, limit }: RpcHandler,
  { maxMessageBytes, budget }: ServerCallContext,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const frames = new FrameReader(`a request of ${path}`, Math.min(limit.bytes, maxMessageBytes));
    let request: Uint8Array | undefined;
    let heldBytes = 0;
    const giveBack = () => {
      budget.give(heldBytes);
      heldBytes = 0;
    };
    const refuse = (error: unknown) => {
      stream.removeAllListeners("data").resume();
      giveBack();
      reject(error);
    };
    const dataCame = (chunk: Buffer) => {
      try {
        if (!budget.take(chunk.length))
          throw new RpcError(
            "RESOURCE_EXHAUSTED",
            "Cannot take so much at once: send the requests one after the other",
          );
        heldBytes += chunk.length;
        for (const message of frames.push(chunk)) {
          if (request !== undefined) throw new RpcError("UNIMPLEMENTED", "Cannot take more than one request message");
          request = message;
        }
      } catch (error) {
        refuse(error);
      }
    };
    const ended = () => {
      giveBack();
      if (request !== undefined && frames.isEmpty) resolve(request);
      else reject(new RpcError("INTERNAL", "Cannot read the request: it ended before its message was whole"));
    };
    const closed = () => {
      giveBack();
      reject(new RpcError("CANCELLED", "the caller has gone"));
    };
    stream.on("data", guarded("http2-stream", dataCame, refuse));
    stream.once("end", guarded("http2-stream", ended, refuse));
    stream.once("close", guarded("http2-stream", closed, refuse));
  });
}

/** What goes back on one stream: headers once, then messages, then a status. Later calls than the last do nothing. */
class Answer {
  readonly #stream: ServerHttp2Stream;
  #headers: Record<string, string[]> = {};
  #isEnded = false;

  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream;
  }

  /** @throws {RpcError} when the value cannot travel. */
  addHeader(key: string, value: string): void {
    this.#headers = toHeaders(this.#headers, { [key]: value });
  }

  /** Resolves when the message has left for the peer, or when there is nobody to send it to. */
  message(bytes: Uint8Array): Promise<void> {
    if (this.#isOver()) return Promise.resolve();
    if (!this.#stream.headersSent) {
      this.#stream.respond(
        { ":status": 200, "content-type": "application/grpc", ...this.#headers },
        { waitForTrailers: true },
      );
    }
    return new Promise((resolve) => {
      this.#stream.once("close", resolve);
      const left = guarded("http2-stream", () => {
        this.#stream.off("close", resolve);
        resolve();
      });
      this.#stream.write(encodeFrame(bytes), left);
    });
  }

  succeed(): void {
    if (this.#stream.headersSent) this.#trailers({ "grpc-status": "0" });
    else this.#only(200, { "grpc-status": "0" });
  }

  fail(error: RpcError): void {
    const status = {
      "grpc-status": String(statusNumber(error.code)),
      "grpc-message": encodeStatusMessage(error.message),
    };
    if (this.#stream.headersSent) this.#trailers(status);
    else this.#only(200, status);
  }

  refuse(httpStatus: number, error: RpcError): void {
    const status = {
      "grpc-status": String(statusNumber(error.code)),
      "grpc-message": encodeStatusMessage(error.message),
    };
    this.#only(httpStatus, status);
  }

  refuseStream(): void {
    if (this.#isOver()) return;
    this.#isEnded = true;
    this.#stream.close(constants.NGHTTP2_REFUSED_STREAM);
  }

  #isOver(): boolean {
    return this.#isEnded || this.#stream.destroyed || this.#stream.closed;
  }

  #trailers(fields: Record<string, string>): void {
    if (this.#isOver()) return;
    this.#isEnded = true;
    const send = () => this.#stream.sendTrailers(fields);
    const broke = () => void this.#stream.destroy();
    this.#stream.once("wantTrailers", guarded("http2-stream", send, broke));
    this.#stream.end();
  }

  /** Headers and status in one block: an answer without a message. */
  #only(httpStatus: number, fields: Record<string, string>): void {
    if (this.#isOver()) return;
    this.#isEnded = true;
    const headers = { ":status": httpStatus, "content-type": "application/grpc", ...this.#headers, ...fields };
    this.#stream.respond(headers, { endStream: true });
    if (this.#stream.readableEnded) return;
    // The caller may still be sending: read past it, and tell it to stop once the answer is out.
    this.#stream.resume();
    this.#stream.close(constants.NGHTTP2_NO_ERROR);
  }
}
