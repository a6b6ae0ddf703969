import type { ClientCall } from "./client-call.ts";
import type { Connection } from "./connection.ts";
import type { Metadata } from "./metadata.ts";
import { RpcError } from "./status.ts";

/** Where the transport puts what comes in. */
export interface StreamSource {
  started(connection: Connection, call: ClientCall): void;
  message(bytes: Uint8Array): void;
  metadata(metadata: Metadata): void;
}

interface StreamParts<T> {
  decode(bytes: Uint8Array): T;
  /** The stream has ended, in whatever way. */
  ended(): void;
  cancel(error: RpcError): void;
}

/** Messages held for a slow reader before the peer has to wait. */
const HELD_MESSAGES = 16;

/**
 * The answers of a server-streaming call, read once with `for await`. Leaving the loop cancels the call. A reader that
 * does not keep up makes the peer wait (HTTP/2 flow control).
 */
export class RpcStream<T> implements AsyncIterable<T> {
  /** The connection that carries the call, as soon as there is one. */
  readonly connection: Promise<Connection>;
  /** Headers and trailers of the answer, when the stream has ended with OK. */
  readonly metadata: Promise<Metadata>;
  readonly #parts: StreamParts<T>;
  readonly #held: Uint8Array[] = [];
  #call: ClientCall | undefined;
  #end: { readonly error: RpcError | undefined } | undefined;
  #wake: () => void = () => {};

  constructor(start: (source: StreamSource) => Promise<void>, parts: StreamParts<T>) {
    this.#parts = parts;
    const connected = Promise.withResolvers<Connection>();
    const metadata = Promise.withResolvers<Metadata>();
    this.connection = connected.promise;
    this.metadata = metadata.promise;
    // These may be unhandled: the error comes to the reader.
    this.connection.catch(() => {});
    this.metadata.catch(() => {});
    const end = (error: RpcError | undefined) => {
      this.#end = { error };
      this.#wake();
      parts.ended();
    };
    start({
      started: (connection, call) => {
        this.#call = call;
        connected.resolve(connection);
      },
      message: (bytes) => {
        this.#held.push(bytes);
        if (this.#held.length >= HELD_MESSAGES) this.#call?.pause();
        this.#wake();
      },
      metadata: metadata.resolve,
    }).then(
      () => end(undefined),
      (error: RpcError) => {
        connected.reject(error);
        metadata.reject(error);
        end(error);
      },
    );
  }

  /** Gives the call up; a reader gets CANCELLED. */
  cancel(reason = "the call was cancelled"): void {
    if (this.#end === undefined) this.#parts.cancel(new RpcError("CANCELLED", reason));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    try {
      for (;;) {
        const bytes = this.#held.shift();
        if (bytes !== undefined) {
          if (this.#held.length < HELD_MESSAGES) this.#call?.resume();
          yield this.#parts.decode(bytes);
        } else if (this.#end !== undefined) {
          if (this.#end.error !== undefined) throw this.#end.error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.cancel("the reader has left");
    }
  }
}
