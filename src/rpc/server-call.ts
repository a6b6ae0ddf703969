import { setMaxListeners } from "node:events";
import { type Clock, guarded, type Timer } from "../async/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { Connection } from "./connection.ts";
import { encodeFrame, FrameReader } from "./frame.ts";
import type { Call, RpcHandler } from "./handler.ts";
import { toHeaders } from "./metadata.ts";
import type { ByteBudget } from "./peer-limits.ts";
import { NotBegun, RpcError, toRpcError } from "./status.ts";
import type { ServerStream, StreamReader } from "./transport.ts";

/** What the calls of one connection share. */
export interface ServerCallContext {
  readonly connection: Connection;
  readonly handlers: ReadonlyMap<string, RpcHandler>;
  readonly maxMessageBytes: number;
  /** Of requests whose rest is awaited. */
  readonly budget: ByteBudget;
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

/**
 * Answers one call; with a refusal it ends with that. Never throws: whatever goes wrong ends this call and nothing else.
 */
export function serveCall(stream: ServerStream, context: ServerCallContext, refusal?: RpcError): ServerCall {
  const handler = context.handlers.get(stream.path);
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  const { timeoutMs } = stream;
  let timer: Timer | undefined;
  const end = (error: RpcError) => {
    controller.abort(error);
    stream.end(error);
  };
  const done = stream.closed.then(() => {
    timer?.cancel();
    controller.abort(new RpcError("CANCELLED", "the caller has cancelled the call, or is gone"));
  });
  const refused = stream.refusal ?? refusal;
  if (refused !== undefined) {
    end(refused);
  } else if (handler === undefined) {
    end(new RpcError("UNIMPLEMENTED", `There is no method ${JSON.stringify(stream.path)} here`));
  } else {
    if (timeoutMs !== undefined) {
      const late = () => end(new RpcError("DEADLINE_EXCEEDED", `The caller's limit of ${timeoutMs} ms has passed`));
      const broke = (error: Error) => end(toRpcError(error));
      timer = context.clock.after(timeoutMs, guarded("timer", late, broke));
    }
    const call = describeCall(context.connection, stream, controller.signal);
    const reader = new RequestReader(handler, context);
    stream.read(reader);
    void stream.closed.then(() => reader.failed(new RpcError("CANCELLED", "the caller has gone")));
    reader.whole
      .then((request) => run(handler, request, call, stream))
      .catch((error: unknown) => fail(stream, toRpcError(error), context.log));
  }
  return { isStreaming: handler?.kind === "stream", done, end };
}

function fail(stream: ServerStream, error: RpcError, log: Log): void {
  log.debug("rpc-failed", { path: stream.path, code: error.code, error: error.message });
  if (error instanceof NotBegun) stream.refuse();
  else stream.end(error);
}

function describeCall(connection: Connection, stream: ServerStream, signal: AbortSignal): Call {
  return {
    connection,
    signal,
    deadlineMs: stream.timeoutMs,
    metadata: stream.metadata,
    setResponseMetadata(key, value) {
      stream.answerMetadata = toHeaders(stream.answerMetadata, { [key]: value });
    },
    sendFd: (fd) => connection.fds?.send(fd),
  };
}

async function run(handler: RpcHandler, request: Uint8Array, call: Call, stream: ServerStream): Promise<void> {
  if (call.signal.aborted) return;
  if (handler.kind === "unary") {
    const response = await handler.run(request, call);
    if (call.signal.aborted) return;
    await stream.write(encodeFrame(response));
    return stream.end();
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
      if (next.done === true) return stream.end();
      await stream.write(encodeFrame(next.value));
    }
  } finally {
    // Not awaited: a handler that is stuck in a wait of its own must not hold the connection's shutdown.
    void Promise.resolve(messages.return?.()).catch(() => {});
  }
}

/** Puts the one message of a request together; what half a message takes counts against the budget. */
class RequestReader implements StreamReader {
  readonly whole: Promise<Uint8Array>;
  readonly #settle: PromiseWithResolvers<Uint8Array>;
  readonly #frames: FrameReader;
  readonly #budget: ByteBudget;
  #request: Uint8Array | undefined;
  #heldBytes = 0;
  #isOver = false;

  constructor({ path, limit }: RpcHandler, { maxMessageBytes, budget }: ServerCallContext) {
    this.#frames = new FrameReader(`a request of ${path}`, Math.min(limit.bytes, maxMessageBytes));
    this.#budget = budget;
    this.#settle = Promise.withResolvers();
    this.whole = this.#settle.promise;
  }

  data(piece: Uint8Array): void {
    if (this.#isOver) return; // read past
    try {
      if (!this.#budget.take(piece.length)) {
        const text = "Cannot take so much at once: send the requests one after the other";
        throw new RpcError("RESOURCE_EXHAUSTED", text);
      }
      this.#heldBytes += piece.length;
      for (const message of this.#frames.push(piece)) {
        if (this.#request) throw new RpcError("UNIMPLEMENTED", "Cannot take more than one request message");
        this.#request = message;
      }
    } catch (error) {
      this.failed(error as Error);
    }
  }

  ended(): void {
    this.#stop();
    if (this.#request && this.#frames.isEmpty) this.#settle.resolve(this.#request);
    else
      this.#settle.reject(new RpcError("INTERNAL", "Cannot read the request: it ended before its message was whole"));
  }

  failed(error: Error): void {
    this.#stop();
    this.#settle.reject(error);
  }

  #stop(): void {
    this.#isOver = true;
    this.#budget.give(this.#heldBytes);
    this.#heldBytes = 0;
  }
}
