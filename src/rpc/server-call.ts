import { setMaxListeners } from "node:events";
import { type Clock, guarded, type Timer } from "../async/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { Connection } from "./connection.ts";
import type { Admitted } from "./decode-queue.ts";
import { encodeFrame, FrameReader } from "./frame.ts";
import type { Call, RpcHandler } from "./handler.ts";
import type { Undecoded } from "./held-requests.ts";
import { toHeaders } from "./metadata.ts";
import type { Budget } from "./peer-limits.ts";
import { NotBegun, RpcError, toRpcError } from "./status.ts";
import type { ServerStream, StreamReader } from "./transport.ts";

/** What the calls of one connection share. */
export interface ServerCallContext {
  readonly connection: Connection;
  readonly handlers: ReadonlyMap<string, RpcHandler>;
  readonly maxMessageBytes: number;
  /** Of requests whose rest is awaited, or that wait to be decoded. */
  readonly budget: Budget;
  /** Of answers that have not left. */
  readonly answers: Budget;
  /** Resolves when the request may be decoded. @throws the signal's reason. */
  readonly admit: (request: Undecoded, signal: AbortSignal) => Promise<Admitted>;
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
    const reader = new RequestReader(handler, context);
    const admission = new Admission(reader, context, controller.signal);
    const call = describeCall(context, stream, { signal: controller.signal, admission });
    stream.read(reader);
    void stream.closed.then(() => reader.failed(new RpcError("CANCELLED", "the caller has gone")));
    reader.whole
      .then((request) => run(handler, request, call, new Answering(stream, context.answers)))
      .catch((error: unknown) => fail(stream, toRpcError(error), context.log))
      .finally(() => admission.end());
  }
  return { isStreaming: handler?.kind === "stream", done, end };
}

function fail(stream: ServerStream, error: RpcError, log: Log): void {
  log.debug("rpc-failed", { path: stream.path, code: error.code, error: error.message });
  if (error instanceof NotBegun) stream.refuse();
  else stream.end(error);
}

/** Sends the answer of a call; what has not left counts against the budget. */
class Answering {
  readonly #stream: ServerStream;
  readonly #budget: Budget;

  constructor(stream: ServerStream, budget: Budget) {
    this.#stream = stream;
    this.#budget = budget;
  }

  /** Resolves when it has left, or the call is over. @throws {RpcError} RESOURCE_EXHAUSTED when too much has not left. */
  async send(message: Uint8Array): Promise<void> {
    if (!this.#budget.take(message.length)) {
      const full = `Cannot send an answer of ${message.length} bytes: too many wait for the peer, or for all peers`;
      throw new RpcError("RESOURCE_EXHAUSTED", `${full}; read those that have been sent`);
    }
    try {
      await this.#stream.write(encodeFrame(message));
    } finally {
      this.#budget.give(message.length);
    }
  }

  end(): void {
    this.#stream.end();
  }
}

/** What waits to be decoded counts as what is in arrival; decoded, until its handler is done: that may be after the stream's end. */
class Admission {
  readonly #reader: RequestReader;
  readonly #context: ServerCallContext;
  readonly #signal: AbortSignal;
  #admitted: Admitted | undefined;
  #isOver = false;

  constructor(reader: RequestReader, context: ServerCallContext, signal: AbortSignal) {
    this.#reader = reader;
    this.#context = context;
    this.#signal = signal;
  }

  get heldBytes(): number | undefined {
    return this.#admitted?.heldBytes;
  }

  async take(request: Undecoded): Promise<void> {
    this.#admitted = await this.#context.admit(request, this.#signal);
    this.#reader.giveBack();
    if (this.#isOver) this.#admitted.release();
  }

  end(): void {
    this.#isOver = true;
    this.#admitted?.release();
  }
}

interface Served {
  readonly signal: AbortSignal;
  readonly admission: Admission;
}

function describeCall({ connection }: ServerCallContext, stream: ServerStream, { signal, admission }: Served): Call {
  return {
    connection,
    signal,
    deadlineMs: stream.timeoutMs,
    metadata: stream.metadata,
    admit: (request) => admission.take(request),
    get heldBytes() {
      return admission.heldBytes;
    },
    setResponseMetadata(key, value) {
      stream.answerMetadata = toHeaders(stream.answerMetadata, { [key]: value });
    },
    sendFd: (fd) => connection.fds?.send(fd),
  };
}

async function run(handler: RpcHandler, request: Uint8Array, call: Call, answering: Answering): Promise<void> {
  if (call.signal.aborted) return;
  if (handler.kind === "unary") {
    const response = await handler.run(request, call);
    if (call.signal.aborted) return;
    await answering.send(response);
    return answering.end();
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
      if (next.done === true) return answering.end();
      await answering.send(next.value);
    }
  } finally {
    // Not awaited: a handler that is stuck in a wait of its own must not hold the connection's shutdown.
    void Promise.resolve(messages.return?.()).catch(() => {});
  }
}

/** Puts the one message of a request together; until it is decoded, what it takes counts against the budget. */
class RequestReader implements StreamReader {
  readonly whole: Promise<Uint8Array>;
  readonly #settle: PromiseWithResolvers<Uint8Array>;
  readonly #frames: FrameReader;
  readonly #budget: Budget;
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
    this.#isOver = true;
    if (this.#request && this.#frames.isEmpty) this.#settle.resolve(this.#request);
    else this.failed(new RpcError("INTERNAL", "Cannot read the request: it ended before its message was whole"));
  }

  failed(error: Error): void {
    this.#isOver = true;
    this.giveBack();
    this.#settle.reject(error);
  }

  /** The message waits no more. A second time does nothing. */
  giveBack(): void {
    this.#budget.give(this.#heldBytes);
    this.#heldBytes = 0;
  }
}
