import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { BorrowedFd } from "../kernel/index.ts";
import type { Connection } from "./connection.ts";
import type { Undecoded } from "./held-requests.ts";
import { defaultMessageLimit, type MessageLimit } from "./message-limits.ts";
import type { Metadata } from "./metadata.ts";
import { RpcError } from "./status.ts";
import { checkElements } from "./wire-elements.ts";

/** One call as its handler sees it. */
export interface Call {
  readonly connection: Connection;
  /** Aborted when the caller has cancelled or gone, when the deadline has passed, and when the server stops hard. */
  readonly signal: AbortSignal;
  /** Milliseconds that the caller was still willing to wait when the call arrived; undefined when it set no limit. */
  readonly deadlineMs: number | undefined;
  readonly metadata: Metadata;
  /** Resolves when the request may be decoded (decode-queue.ts). Without it, at once. */
  readonly admit?: (request: Undecoded) => Promise<void>;
  /** What its decoded request counts for until the call ends; undefined before. */
  readonly heldBytes?: number | undefined;
  /** Adds a header to the answer. Nothing happens when the answer has begun. */
  setResponseMetadata(key: string, value: string): void;
  /** Sends a descriptor with or before the next bytes of the answer. Nothing happens where none can travel (TCP). */
  sendFd(fd: BorrowedFd): void;
}

/** A method and what answers it, with messages as bytes. */
export type RpcHandler = {
  readonly path: string;
  /** What its request may be. */
  readonly limit: MessageLimit;
} & (
  | { readonly kind: "unary"; run(request: Uint8Array, call: Call): Promise<Uint8Array> }
  | { readonly kind: "stream"; run(request: Uint8Array, call: Call): AsyncIterable<Uint8Array> }
);

/** Answers each request with one message. What `handle` throws becomes the status of the call: see `toRpcError`. */
export function unaryHandler<I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O>,
  handle: (request: MessageShape<I>, call: Call) => Promise<MessageInitShape<O>>,
  limit = defaultMessageLimit,
): RpcHandler {
  return {
    path: methodPath(method),
    kind: "unary",
    limit,
    async run(request, call) {
      const message = await decodeRequest(method.input, { request, limit, call });
      return encodeMessage(method.output, await handle(message, call));
    },
  };
}

/** Answers each request with a stream. It takes the next message when the one before has left for the peer. */
export function streamHandler<I extends DescMessage, O extends DescMessage>(
  method: DescMethodServerStreaming<I, O>,
  handle: (request: MessageShape<I>, call: Call) => AsyncIterable<MessageInitShape<O>>,
  limit = defaultMessageLimit,
): RpcHandler {
  const encoded = async function* (request: MessageShape<I>, call: Call) {
    for await (const message of handle(request, call)) yield encodeMessage(method.output, message);
  };
  return encodedStreamHandler(method, encoded, limit);
}

/** The same for answers that `encodeMessage` has made before: large ones that are sent again and again. */
export function encodedStreamHandler<I extends DescMessage, O extends DescMessage>(
  method: DescMethodServerStreaming<I, O>,
  handle: (request: MessageShape<I>, call: Call) => AsyncIterable<Uint8Array>,
  limit = defaultMessageLimit,
): RpcHandler {
  return {
    path: methodPath(method),
    kind: "stream",
    limit,
    async *run(request, call) {
      yield* handle(await decodeRequest(method.input, { request, limit, call }), call);
    },
  };
}

/** The `:path` of a method: "/package.Service/Method", or "/Service/Method" without a package. */
export function methodPath(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** As `decodeMessage`, when it is the caller's turn. @throws {RpcError} also where the caller goes before that. */
async function decodeRequest<D extends DescMessage>(schema: D, received: ReceivedBytes): Promise<MessageShape<D>> {
  const { request, limit, call } = received;
  const elements = checkElements(schema, request, limit.elements);
  await call.admit?.({ elements, bytes: request.length });
  return decode(schema, request);
}

interface ReceivedBytes {
  readonly request: Uint8Array;
  readonly limit: MessageLimit;
  readonly call: Call;
}

/**
 * Decodes what a peer sent. Fields that the schema does not know are not kept: they would take memory for nothing.
 * @throws {RpcError} INTERNAL when the bytes are not such a message; RESOURCE_EXHAUSTED when it has too many elements.
 */
export function decodeMessage<D extends DescMessage>(
  schema: D,
  bytes: Uint8Array,
  limit: MessageLimit,
): MessageShape<D> {
  checkElements(schema, bytes, limit.elements);
  return decode(schema, bytes);
}

function decode<D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> {
  try {
    return fromBinary(schema, bytes, { readUnknownFields: false });
  } catch (error) {
    throw new RpcError("INTERNAL", `Cannot read a ${schema.typeName}: ${(error as Error).message}`, { cause: error });
  }
}

/** @throws {RpcError} INTERNAL when a field holds what its type cannot. */
export function encodeMessage<D extends DescMessage>(schema: D, message: MessageInitShape<D>): Uint8Array {
  try {
    return toBinary(schema, create(schema, message));
  } catch (error) {
    throw new RpcError("INTERNAL", `Cannot write a ${schema.typeName}: ${(error as Error).message}`, { cause: error });
  }
}
