import type { BorrowedFd } from "../kernel/index.ts";
import { encodeFrame, FrameReader } from "./frame.ts";
import type { Headers, Metadata } from "./metadata.ts";
import { RpcError } from "./status.ts";
import type { ClientConnection, ClientStream } from "./transport.ts";

/** What goes out, and who hears what comes back. */
export interface ClientCallOptions {
  /** "/package.Service/Method" */
  readonly path: string;
  readonly timeoutMs: number | undefined;
  readonly metadata: Headers;
  readonly fds: readonly BorrowedFd[];
  readonly request: Uint8Array;
  readonly maxMessageBytes: number;
  /** Each message in its order. After `pause()` none comes but those already in hand. */
  onMessage(message: Uint8Array): void;
  /** Once, after the last message. `error` is undefined when the status was OK. */
  onEnd(end: { readonly error: RpcError | undefined; readonly metadata: Metadata }): void;
}

/** A call under way. */
export interface ClientCall {
  /** Gives the call up: the peer is notified, and `onEnd` gets this error. */
  cancel(error: RpcError): void;
  pause(): void;
  resume(): void;
}

/**
 * Sends a request with one message and reads its answer.
 * @throws {Untouched} when the connection takes no call any more.
 */
export function startClientCall(connection: ClientConnection, options: ClientCallOptions): ClientCall {
  const { path, timeoutMs, metadata, fds, request, maxMessageBytes } = options;
  const frames = new FrameReader(`an answer of ${path}`, maxMessageBytes);
  let hasEnded = false;
  const ended = (error: RpcError | undefined, answered: Metadata) => {
    if (hasEnded) return;
    hasEnded = true;
    options.onEnd({ error, metadata: answered });
  };
  const cancel = (why: RpcError) => {
    stream.cancel();
    ended(why, new Map()); // not at the stream's close: that waits for a peer that does not read, for ever if need be
  };
  const failed = (cause: Error) =>
    cancel(new RpcError("INTERNAL", `the answer could not be taken: ${cause.message}`, { cause }));
  const data = (piece: Uint8Array) => {
    if (hasEnded) return;
    try {
      for (const message of frames.push(piece)) options.onMessage(message);
    } catch (cause) {
      if (!(cause instanceof RpcError)) throw cause;
      cancel(cause);
    }
  };
  // Right before the call, in one turn: nothing else can be written between.
  for (const fd of fds) connection.fds?.send(fd);
  const outgoing = { path, timeoutMs, metadata, request: encodeFrame(request) };
  const stream: ClientStream = connection.call(outgoing, { data, ended, failed });
  return { cancel, pause: () => stream.pause(), resume: () => stream.resume() };
}
