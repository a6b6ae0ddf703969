import type {
  DescMessage,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import { type Clock, type Deadline, startDeadline } from "../async/index.ts";
import type { Log } from "../telemetry/index.ts";
import { type ClientCall, startClientCall } from "./client-call.ts";
import { ConnectionPool, type Lease } from "./client-pool.ts";
import type { Connection, PeerIdentity } from "./connection.ts";
import { decodeMessage, encodeMessage, methodPath } from "./handler.ts";
import { defaultLimits, type RpcLimits } from "./limits.ts";
import { type Metadata, type MetadataInit, toHeaders } from "./metadata.ts";
import type { Fd } from "./raw-stream.ts";
import { RpcStream, type StreamSource } from "./rpc-stream.ts";
import { RpcError } from "./status.ts";
import { formatTimeout } from "./timeout.ts";
import type { TlsIdentity } from "./tls.ts";

export interface ClientOptions {
  /** Without it the client speaks plain HTTP/2. */
  readonly tls?: TlsIdentity;
  readonly log: Log;
  readonly clock: Clock;
  /** For connect, TLS and HTTP/2 settings together. */
  readonly dialTimeoutMs: number;
  /** A connection without calls is closed after this time. */
  readonly idleMs: number;
  /** Headers of each call, made for the peer of the connection that carries it: the NSM token names it as its audience. */
  readonly credentials?: (peer: PeerIdentity | undefined) => Readonly<Record<string, string>>;
  readonly limits?: Partial<RpcLimits>;
}

export interface CallOptions {
  /** Gives the call up when it is aborted. */
  readonly signal?: AbortSignal;
  /** Limit for dialling and the answer together; the peer is told what is left of it. */
  readonly timeoutMs?: number;
  readonly metadata?: MetadataInit;
  /** Descriptors that leave with or before the headers of the call. They stay the caller's own. */
  readonly fds?: readonly Fd[];
}

export interface Answer<O extends DescMessage> {
  readonly response: MessageShape<O>;
  /** Headers and trailers of the answer. */
  readonly metadata: Metadata;
  readonly connection: Connection;
}

/** Calls peers by their address, over one kept connection each. */
export class RpcClient {
  readonly #options: ClientOptions;
  readonly #limits: RpcLimits;
  readonly #pool: ConnectionPool;

  constructor(options: ClientOptions) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#pool = new ConnectionPool({ ...options, limits: this.#limits });
  }

  /**
   * Calls once and waits for the one answer.
   * @throws {RpcError} with the peer's code and text, or UNAVAILABLE (cannot connect, connection lost), DEADLINE_EXCEEDED, CANCELLED.
   */
  async call<I extends DescMessage, O extends DescMessage>(
    target: string,
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): Promise<Answer<O>> {
    const bytes = encodeMessage(method.input, request);
    const scope = new CallScope(this.#options.clock, methodPath(method), target, options);
    try {
      const { messages, metadata, connection } = await this.#retried(target, scope, (lease) =>
        this.#unary(lease, scope, bytes),
      );
      const [message] = messages;
      if (message === undefined || messages.length > 1) {
        throw new RpcError("INTERNAL", `${target} answered ${scope.path} with ${messages.length} messages, not one`);
      }
      return { response: decodeMessage(method.output, message), metadata, connection };
    } finally {
      scope.end();
    }
  }

  /** Calls and reads a stream of answers. Nothing is thrown here: errors come to whoever reads. */
  stream<I extends DescMessage, O extends DescMessage>(
    target: string,
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): RpcStream<MessageShape<O>> {
    const scope = new CallScope(this.#options.clock, methodPath(method), target, options);
    const start = async (sink: StreamSource) =>
      await this.#startStream(target, scope, encodeMessage(method.input, request), sink);
    return new RpcStream(start, {
      decode: (bytes) => decodeMessage(method.output, bytes),
      ended: () => scope.end(),
      cancel: (error) => scope.cancel(error),
    });
  }

  /** Ends every call with CANCELLED and closes every connection. */
  async close(): Promise<void> {
    await this.#pool.close();
  }

  /** One more try on a new connection when the peer has refused the call without looking at it: it was closing. */
  async #retried<T>(target: string, scope: CallScope, attempt: (lease: Lease) => Promise<T>): Promise<T> {
    try {
      return await attempt(await this.#pool.lease(target, scope.signal));
    } catch (error) {
      if (!(error instanceof Untouched)) throw scope.failure(error);
    }
    try {
      return await attempt(await this.#pool.lease(target, scope.signal));
    } catch (error) {
      throw scope.failure(error instanceof Untouched ? error.error : error);
    }
  }

  #unary(lease: Lease, scope: CallScope, request: Uint8Array) {
    const messages: Uint8Array[] = [];
    return new Promise<{ messages: Uint8Array[]; metadata: Metadata; connection: Connection }>((resolve, reject) => {
      this.#begin(lease, scope, request, {
        onMessage: (message) => void messages.push(message),
        onEnd: ({ error, metadata, isUntouched }) => {
          if (error === undefined) resolve({ messages, metadata, connection: lease.connection });
          else reject(isUntouched ? new Untouched(error) : error);
        },
      });
    });
  }

  async #startStream(target: string, scope: CallScope, request: Uint8Array, sink: StreamSource): Promise<void> {
    await this.#retried(
      target,
      scope,
      (lease) =>
        new Promise<void>((resolve, reject) => {
          let hasBegun = false;
          const call = this.#begin(lease, scope, request, {
            onMessage(message) {
              hasBegun = true;
              sink.message(message);
            },
            onEnd({ error, metadata, isUntouched }) {
              if (isUntouched && error !== undefined && !hasBegun) return reject(new Untouched(error));
              if (error !== undefined) return reject(error);
              sink.metadata(metadata);
              resolve();
            },
          });
          sink.started(lease.connection, call);
        }),
    );
  }

  /** Puts one call on a connection. Errors, thrown ones too, come by `onEnd`. */
  #begin(
    lease: Lease,
    scope: CallScope,
    request: Uint8Array,
    listener: Pick<Parameters<typeof startClientCall>[0], "onMessage" | "onEnd">,
  ): ClientCall {
    const { connection, session, scheme, authority } = lease;
    const stop = () => call?.cancel(scope.reason());
    let call: ClientCall | undefined;
    try {
      scope.signal.throwIfAborted();
      const leftMs = scope.leftMs();
      const headers = {
        ":method": "POST",
        ":scheme": scheme,
        ":authority": authority,
        ":path": scope.path,
        te: "trailers",
        "content-type": "application/grpc",
        ...(leftMs === undefined ? {} : { "grpc-timeout": formatTimeout(leftMs) }),
        ...toHeaders(this.#options.credentials?.(connection.peer) ?? {}, scope.options.metadata ?? {}),
      };
      // Right before the headers, in one turn: nothing else can be written between.
      for (const fd of scope.options.fds ?? []) connection.fds?.send(fd);
      call = startClientCall({
        session,
        headers,
        request,
        maxMessageBytes: this.#limits.maxMessageBytes,
        onMessage: listener.onMessage,
        onEnd(end) {
          scope.signal.removeEventListener("abort", stop);
          lease.release();
          listener.onEnd(end);
        },
      });
      scope.signal.addEventListener("abort", stop, { once: true });
      return call;
    } catch (error) {
      lease.release();
      throw error;
    }
  }
}

/** The peer had not begun to work on the call. */
class Untouched extends Error {
  readonly error: RpcError;
  constructor(error: RpcError) {
    super(error.message);
    this.error = error;
  }
}

/** What one call is, from the first dial to its end: its limit, its caller's signal, its words for errors. */
class CallScope {
  readonly path: string;
  readonly options: CallOptions;
  readonly #target: string;
  readonly #own = new AbortController();
  readonly #deadline: Deadline | undefined;
  readonly signal: AbortSignal;

  constructor(clock: Clock, path: string, target: string, options: CallOptions) {
    this.path = path;
    this.options = options;
    this.#target = target;
    const { timeoutMs, signal } = options;
    this.#deadline =
      timeoutMs === undefined ? undefined : startDeadline(clock, timeoutMs, { what: `${path} at ${target}` });
    const signals = [this.#own.signal, signal, this.#deadline?.signal].filter((one) => one !== undefined);
    this.signal = AbortSignal.any(signals);
  }

  leftMs(): number | undefined {
    return this.#deadline?.leftMs();
  }

  cancel(error: RpcError): void {
    this.#own.abort(error);
  }

  /** Why the call was given up. */
  reason(): RpcError {
    const why: unknown = this.signal.reason;
    if (why instanceof RpcError) return why;
    const code = this.#deadline?.signal.aborted === true ? "DEADLINE_EXCEEDED" : "CANCELLED";
    return new RpcError(code, why instanceof Error ? why.message : String(why), { cause: why });
  }

  failure(error: unknown): RpcError {
    if (error instanceof RpcError) return error;
    if (this.signal.aborted) return this.reason();
    return new RpcError("INTERNAL", `Cannot call ${this.path} at ${this.#target}: ${String(error)}`, { cause: error });
  }

  end(): void {
    this.#deadline?.end();
  }
}
