import type { RpcLimits } from "../rpc-limits.ts";

/** Bytes that a peer may send ahead on one stream, and on all streams of a connection. */
export const STREAM_WINDOW_BYTES = 256 * 1024;
export const SESSION_WINDOW_BYTES = 1024 * 1024;

/** What node:http2 may hold for one session, in MB: a message in each direction, and the windows. Its default is 10. */
export function sessionMemoryMb(limits: RpcLimits): number {
  return Math.ceil((2 * limits.maxMessageBytes + SESSION_WINDOW_BYTES) / 1_000_000) + 10;
}
