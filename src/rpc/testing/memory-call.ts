import type { Headers, Metadata } from "../metadata.ts";
import { RpcError, Untouched } from "../status.ts";
import type { AnswerReader, ClientStream, OutgoingCall, ServerStream, StreamReader } from "../transport.ts";

/** Sends something to the other end. */
export type Send = (arrive: () => void) => void;

/** Bytes of an answer that may be under way or unread before its sender has to wait, as HTTP/2 has it by default here. */
const WINDOW_BYTES = 256 * 1024;

/** The caller's side of one call. */
export class MemoryClientStream implements ClientStream {
  /** The other side. */
  server: MemoryServerStream | undefined;
  readonly #reader: AnswerReader;
  readonly #send: Send;
  readonly #over: () => void;
  readonly #held: (() => void)[] = [];
  #isPaused = false;
  #isOver = false;

  constructor(reader: AnswerReader, send: Send, over: () => void) {
    this.#reader = reader;
    this.#send = send;
    this.#over = over;
  }

  cancel(): void {
    if (this.#end()) this.#send(() => this.server?.lost());
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    while (!this.#isPaused) {
      const next = this.#held.shift();
      if (!next) return;
      next();
    }
  }

  /** A piece has arrived. */
  data(piece: Uint8Array): void {
    this.#inOrder(() => {
      if (this.#isOver) return;
      this.#send(() => this.server?.hasRead(piece.length));
      try {
        this.#reader.data(piece);
      } catch (error) {
        this.#reader.failed(error as Error);
      }
    });
  }

  /** The answer has ended. */
  ended(error: RpcError | undefined, metadata: Metadata): void {
    this.#inOrder(() => {
      if (this.#end()) this.#reader.ended(error, metadata);
    });
  }

  /** The connection has: what is held is not waited for. */
  lost(): void {
    if (this.#end())
      this.#reader.ended(new RpcError("UNAVAILABLE", "the connection was lost during the call"), new Map());
  }

  #inOrder(step: () => void): void {
    if (this.#isPaused || this.#held.length > 0) this.#held.push(step);
    else step();
  }

  #end(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    this.#over();
    return true;
  }
}

/** The server's side of it. */
export class MemoryServerStream implements ServerStream {
  readonly path: string;
  readonly metadata: Metadata;
  readonly timeoutMs: number | undefined;
  readonly refusal = undefined;
  readonly closed: Promise<void>;
  answerMetadata: Headers = {};
  readonly #client: MemoryClientStream;
  readonly #send: Send;
  readonly #close: () => void;
  #sentMetadata: Metadata | undefined;
  #reader: StreamReader | undefined;
  #unreadBytes = 0;
  #room = Promise.withResolvers<void>();
  #isOver = false;

  constructor({ path, metadata, timeoutMs }: OutgoingCall, client: MemoryClientStream, send: Send, over: () => void) {
    this.path = path;
    this.metadata = metadataOf(metadata);
    this.timeoutMs = timeoutMs;
    this.#client = client;
    this.#send = send;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#close = () => {
      this.#isOver = true;
      this.#room.resolve();
      over();
      resolve();
    };
  }

  read(reader: StreamReader): void {
    this.#reader = reader;
  }

  async write(piece: Uint8Array): Promise<void> {
    this.#sentMetadata ??= metadataOf(this.answerMetadata);
    while (this.#unreadBytes >= WINDOW_BYTES && !this.#isOver) {
      this.#room = Promise.withResolvers();
      await this.#room.promise;
    }
    if (this.#isOver) return;
    this.#unreadBytes += piece.length;
    const bytes = Uint8Array.from(piece);
    this.#send(() => this.#client.data(bytes));
  }

  end(error?: RpcError): void {
    if (this.#isOver) return;
    const metadata = this.#sentMetadata ?? metadataOf(this.answerMetadata);
    const seen = error && new RpcError(error.code, error.message); // what the peer can know of it
    this.#send(() => this.#client.ended(seen, metadata));
    this.#close();
  }

  refuse(): void {
    if (this.#isOver) return;
    this.#send(() => this.#client.ended(new Untouched("the peer refused the call"), new Map()));
    this.#close();
  }

  /** A piece of the request has arrived, or, without one, its end. */
  requestCame(piece?: Uint8Array): void {
    if (this.#isOver) return;
    try {
      if (piece) this.#reader?.data(piece);
      else this.#reader?.ended();
    } catch (error) {
      this.#reader?.failed(error as Error);
    }
  }

  /** The caller has read so much. */
  hasRead(bytes: number): void {
    this.#unreadBytes -= bytes;
    this.#room.resolve();
  }

  /** The caller has cancelled, or the connection is lost. */
  lost(): void {
    if (!this.#isOver) this.#close();
  }
}

function metadataOf(headers: Headers): Metadata {
  return new Map(Object.entries(headers));
}
