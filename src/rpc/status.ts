import { DeadlineError } from "../async/index.ts";

/** The codes of gRPC (google.rpc.Code): the same names and numbers in every language. */
const statusNumbers = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

/** A gRPC status code by its name. */
export type Status = keyof typeof statusNumbers;

const statusNames = Object.keys(statusNumbers) as Status[]; // in the order of their numbers

/** The number that travels in `grpc-status`. */
export function statusNumber(status: Status): number {
  return statusNumbers[status];
}

/** A number that this list does not know reads as UNKNOWN, as gRPC requires of every client. */
export function statusFromNumber(number: number): Status {
  return statusNames[number] ?? "UNKNOWN";
}

/** A call that did not end with OK: thrown by a handler to choose the code, and by a client call that got one. */
export class RpcError extends Error {
  override readonly name = "RpcError";
  readonly code: Status;

  constructor(code: Status, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/**
 * Thrown by a handler that has touched nothing: the stream is refused (REFUSED_STREAM), and a gRPC client calls once more by
 * itself, on another connection where this one has said GOAWAY (gRFC A6, transparent retries).
 */
export class NotBegun extends RpcError {
  constructor(message: string, options?: ErrorOptions) {
    super("UNAVAILABLE", message, options);
  }
}

/** The same at the caller: the peer has not begun to work on the call, and it may be tried again elsewhere. */
export class Untouched extends RpcError {
  constructor(message: string, options?: ErrorOptions) {
    super("UNAVAILABLE", message, options);
  }
}

/** No connection was dialled, or the socket for it not kept: who the call is for has as many as it may. Says nothing of the peer. */
export class DialRefused extends RpcError {
  constructor(message: string) {
    super("RESOURCE_EXHAUSTED", message);
  }
}

/** What the caller sees of a handler's failure. An error without a code of its own is UNKNOWN, with its message. */
export function toRpcError(error: unknown): RpcError {
  if (error instanceof RpcError) return error;
  if (error instanceof DeadlineError) return new RpcError("DEADLINE_EXCEEDED", error.message, { cause: error });
  if (error instanceof Error) return new RpcError("UNKNOWN", error.message, { cause: error });
  return new RpcError("UNKNOWN", String(error));
}
