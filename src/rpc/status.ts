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

/** A number that this list does not know reads as UNKNOWN, as gRPC asks of every client. */
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

/** What a handler's failure looks like to the caller. An error without a code of its own is UNKNOWN, with its message. */
export function toRpcError(error: unknown): RpcError {
  if (error instanceof RpcError) return error;
  if (error instanceof DeadlineError) return new RpcError("DEADLINE_EXCEEDED", error.message, { cause: error });
  if (error instanceof Error) return new RpcError("UNKNOWN", error.message, { cause: error });
  return new RpcError("UNKNOWN", String(error));
}

/** Longest text of a status, in characters: peers limit the size of a header block, often to 8 KiB in all. */
const LONGEST_MESSAGE = 2000;

/** Text for `grpc-message`: percent-encoded UTF-8, cut where it is too long for a header. */
export function encodeStatusMessage(message: string): string {
  const text = message.length > LONGEST_MESSAGE ? `${message.slice(0, LONGEST_MESSAGE)}…` : message;
  let encoded = "";
  for (const byte of Buffer.from(text)) {
    const isPlain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25;
    encoded += isPlain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return encoded;
}

/** Text from `grpc-message`. What is not percent-encoded as it should be stays as it is: a status is never lost for its text. */
export function decodeStatusMessage(encoded: string): string {
  if (!encoded.includes("%")) return encoded;
  const bytes: number[] = [];
  for (let at = 0; at < encoded.length; at++) {
    const hex = encoded[at] === "%" ? encoded.slice(at + 1, at + 3) : "";
    if (/^[0-9a-fA-F]{2}$/.test(hex)) {
      bytes.push(Number.parseInt(hex, 16));
      at += 2;
    } else {
      bytes.push(...Buffer.from(encoded[at] ?? ""));
    }
  }
  return Buffer.from(bytes).toString();
}

/** The status of an answer that is not gRPC at all, by its HTTP status (grpc doc/http-grpc-status-mapping.md). */
export function statusFromHttp(httpStatus: number): Status {
  switch (httpStatus) {
    case 400:
      return "INTERNAL";
    case 401:
      return "UNAUTHENTICATED";
    case 403:
      return "PERMISSION_DENIED";
    case 404:
      return "UNIMPLEMENTED";
    case 429:
    case 502:
    case 503:
    case 504:
      return "UNAVAILABLE";
    default:
      return "UNKNOWN";
  }
}

/** The status of a stream that was reset, by its HTTP/2 error code (RFC 9113, 7; grpc doc/PROTOCOL-HTTP2.md). */
export function statusFromReset(http2Code: number): Status {
  switch (http2Code) {
    case 0x7: // REFUSED_STREAM
      return "UNAVAILABLE";
    case 0x8: // CANCEL
      return "CANCELLED";
    case 0xb: // ENHANCE_YOUR_CALM
      return "RESOURCE_EXHAUSTED";
    case 0xc: // INADEQUATE_SECURITY
      return "PERMISSION_DENIED";
    default:
      return "INTERNAL";
  }
}
