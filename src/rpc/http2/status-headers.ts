// Statuses as gRPC writes them into headers of HTTP/2, and what counts as one where there is none.
import { type RpcError, type Status, statusNumber } from "../status.ts";

/** The trailers of an answer; without an error it is OK, which has no text. */
export function statusHeaders(error: RpcError | undefined): Record<string, string> {
  if (error === undefined) return { "grpc-status": "0" };
  return { "grpc-status": String(statusNumber(error.code)), "grpc-message": encodeStatusMessage(error.message) };
}

/** Longest text of a status as it travels: peers limit the size of a header block, often to 8 KiB in all. */
const LONGEST_MESSAGE = 4096;

/** Text for `grpc-message`: percent-encoded UTF-8, cut between two characters where it is too long for a header. */
export function encodeStatusMessage(message: string): string {
  let encoded = "";
  for (const sign of message) {
    const next = /^[ -$&-~]$/.test(sign) ? sign : percentEncode(sign);
    if (encoded.length + next.length > LONGEST_MESSAGE) return encoded + percentEncode("…");
    encoded += next;
  }
  return encoded;
}

function percentEncode(text: string): string {
  return Buffer.from(text).toString("hex").toUpperCase().replace(/../g, "%$&");
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
