import type {
  DescMessage,
  DescMethod,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import { type Clock, guarded } from "../async/index.ts";
import type { BorrowedFd } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { CallScope } from "./call-scope.ts";
import { type ClientCall, type ClientCallOptions, startClientCall } from "./client-call.ts";
import { ConnectionPool, type Lease } from "./client-pool.ts";
import type { Connection, PeerIdentity, TlsCredentials, TlsIdentity } from "./connection.ts";
import { decodeMessage, encodeMessage, methodPath } from "./handler.ts";
import { http2Transport } from "./http2/transport.ts";
import { defaultMessageLimit, type MessageLimit } from "./message-limits.ts";
import { type Metadata, type MetadataInit, toHeaders } from "./metadata.ts";
import type { PeerLimits } from "./peer-limits.ts";
import { defaultLimits, type RpcLimits } from "./rpc-limits.ts";
import { RpcStream, type StreamSource } from "./rpc-stream.ts";
import { RpcError, Untouched } from "./status.ts";
import type { ServerTls, Transport } from "./transport.ts";

export interface ClientOptions {
  /** Without it the client speaks plain HTTP/2. */
  readonly tls?: TlsIdentity;
  /** For a server that has no SVID. */
  readonly serverTls?: () => Promise<ServerTls>;
  readonly log: Log;
  readonly clock: Clock;
  /** For connect, TLS and HTTP/2 settings together. */
  readonly dialTimeoutMs: number;
  /** A connection without calls is closed after this time. */
  readonly idleMs: number;
  /**
   * Headers of each call, made for the connection that carries it: the NSM token names the peer as its audience, and is
   * signed with the key that the peer has seen.
   */
  readonly credentials?: (
    peer: PeerIdentity | undefined,
    shown: TlsCredentials | undefined,
  ) => Readonly<Record<string, string>>;
  /** Whether the peer that was found at a target is the one that the caller means. @throws with the reason when it is not. */
  readonly checkPeer?: (target: string, peer: PeerIdentity | undefined) => void;
  readonly limits?: Partial<RpcLimits>;
  /** Where descriptors count that peers pass over connections of ours, and connections that are dialled for calls with an owner. */
  readonly owners?: PeerLimits;
  /** How calls travel; HTTP/2 on sockets by default. */
  readonly transport?: Transport | undefined;
  /** What each message of an answer may be, where it is more or less than usual. */
  readonly answerLimit?: (method: DescMethod) => MessageLimit;
}

export interface CallOptions {
  /** Gives the call up when it is aborted. */
  readonly signal?: AbortSignal;
  /** Limit for dialling and the answer together; the peer gets what is left of it. */
  readonly timeoutMs?: number;
  readonly metadata?: MetadataInit;
  /** Descriptors that leave with or before the headers of the call. They stay the caller's own. */
  readonly fds?: readonly BorrowedFd[];
  /** Who has caused the call: a connection that is dialled for it is in that one's share (`ClientOptions.owners`). In none by default. */
  readonly owner?: string | undefined;
}

/** What a unary call gives when it succeeds. */
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
  readonly #scopes = new Set<CallScope>();

  constructor(options: ClientOptions) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#pool = new ConnectionPool({
      ...options,
      transport: options.transport ?? http2Transport,
      limits: this.#limits,
    });
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
    const scope = this.#scope(method, target, options);
    const limit = this.#answerLimit(method);
    try {
      const { messages, metadata, connection } = await this.#retried({ target, owner: options.owner }, scope, (lease) =>
        this.#unary(lease, scope, { request: bytes, limit, options }),
      );
      const [message] = messages;
      if (message === undefined) throw new RpcError("INTERNAL", `${target} answered ${scope.path} without a message`);
      return { response: decodeMessage(method.output, message, limit), metadata, connection };
    } finally {
      this.#end(scope);
    }
  }

  /** Calls and reads a stream of answers. Nothing is thrown here: errors come to the reader. */
  stream<I extends DescMessage, O extends DescMessage>(
    target: string,
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): RpcStream<MessageShape<O>> {
    const scope = this.#scope(method, target, options);
    const limit = this.#answerLimit(method);
    const start = async (sink: StreamSource) =>
      await this.#startStream(target, scope, { request: encodeMessage(method.input, request), limit, options }, sink);
    return new RpcStream(start, {
      decode: (bytes) => decodeMessage(method.output, bytes, limit),
      ended: () => this.#end(scope),
      cancel: (error) => scope.cancel(error),
    });
  }

  /** The next call to the target is over a new connection: what the target names may be another socket then. */
  leave(target: string): void {
    this.#pool.leave(target);
  }

  /** Ends every call with CANCELLED and closes every connection. */
  async close(): Promise<void> {
    for (const scope of this.#scopes) scope.cancel(new RpcError("CANCELLED", "the client was closed"));
    await this.#pool.close();
  }

  #answerLimit(method: DescMethod): MessageLimit {
    const { bytes, elements } = this.#options.answerLimit?.(method) ?? defaultMessageLimit;
    return { bytes: Math.min(bytes, this.#limits.maxMessageBytes), elements };
  }

  #scope(method: DescMethod, target: string, { timeoutMs, signal }: CallOptions): CallScope {
    const call = { path: methodPath(method), target };
    const scope = new CallScope(this.#options.clock, call, { timeoutMs, signal });
    this.#scopes.add(scope);
    return scope;
  }

  #end(scope: CallScope): void {
    this.#scopes.delete(scope);
    scope.end();
  }

  /** One more try on a new connection when the peer has refused the call without reading it: it was closing. */
  async #retried<T>(to: Addressee, scope: CallScope, attempt: (lease: Lease) => Promise<T>): Promise<T> {
    const once = async () => await attempt(await this.#pool.lease(to.target, scope.signal, to.owner));
    try {
      return await once().catch((error: unknown) => {
        if (!(error instanceof Untouched)) throw error;
        return once();
      });
    } catch (error) {
      throw scope.failure(error);
    }
  }

  #unary(lease: Lease, scope: CallScope, outgoing: Outgoing) {
    const messages: Uint8Array[] = [];
    return new Promise<{ messages: Uint8Array[]; metadata: Metadata; connection: Connection }>((resolve, reject) => {
      this.#begin(lease, scope, outgoing, {
        onMessage(message) {
          if (messages.length > 0)
            throw new RpcError("INTERNAL", `the answer to ${scope.path} has more than one message`);
          messages.push(message);
        },
        onEnd: ({ error, metadata }) => {
          if (error === undefined) resolve({ messages, metadata, connection: lease.connection });
          else reject(error);
        },
      });
    });
  }

  async #startStream(target: string, scope: CallScope, outgoing: Outgoing, sink: StreamSource): Promise<void> {
    await this.#retried(
      { target, owner: outgoing.options.owner },
      scope,
      (lease) =>
        new Promise<void>((resolve, reject) => {
          const call = this.#begin(lease, scope, outgoing, {
            onMessage: (message) => sink.message(message),
            onEnd({ error, metadata }) {
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
    { request, limit, options }: Outgoing,
    listener: Pick<ClientCallOptions, "onMessage" | "onEnd">,
  ): ClientCall {
    const { connection } = lease;
    const stop = guarded("abort", () => call?.cancel(scope.signal.reason as RpcError));
    let call: ClientCall | undefined;
    try {
      scope.signal.throwIfAborted();
      call = startClientCall(lease.transport, {
        path: scope.path,
        timeoutMs: scope.leftMs(),
        metadata: toHeaders(
          this.#options.credentials?.(connection.peer, connection.shown) ?? {},
          options.metadata ?? {},
        ),
        fds: options.fds ?? [],
        request,
        maxMessageBytes: limit.bytes,
        onMessage: listener.onMessage,
        onEnd(end) {
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

/** Where a call goes, and who has caused it. */
interface Addressee {
  readonly target: string;
  readonly owner: string | undefined;
}

/** What goes out with a call, apart from where and how long. */
interface Outgoing {
  readonly request: Uint8Array;
  readonly limit: MessageLimit;
  readonly options: CallOptions;
}
