/** Bounds that keep one peer from using up the process. */
export interface RpcLimits {
  /** Longest message that is read, in bytes, whatever its method allows. */
  readonly maxMessageBytes: number;
  /** Calls that one peer may have open at once on one connection. */
  readonly maxConcurrentCalls: number;
  /** Calls that one peer may have open at once on all its connections. */
  readonly maxCallsPerOwner: number;
  /** Connections that a server holds at once, and for one SPIFFE ID; for a further one an idle one ends (peer-limits.ts). */
  readonly maxConnections: number;
  readonly maxConnectionsPerOwner: number;
  /** Bytes of requests whose rest is awaited, of one SPIFFE ID and on the whole server; on one connection four messages. */
  readonly maxArrivalBytesPerOwner: number;
  readonly maxArrivalBytes: number;
  /** Connections that may be in their handshake at once; a further one takes the place of the oldest. */
  readonly maxHandshakes: number;
  /** Time for TLS and the first HTTP/2 frame of an accepted connection, in ms. */
  readonly handshakeTimeoutMs: number;
}

/** Far above what a node's own peers request, low enough that a hostile one cannot take the memory. */
export const defaultLimits: RpcLimits = {
  maxMessageBytes: 256 * 1024,
  // A manager may watch and request every connection of a node with 256 virtual functions over one connection of its own.
  maxConcurrentCalls: 1024,
  maxCallsPerOwner: 1024,
  maxConnections: 1024,
  maxConnectionsPerOwner: 256,
  maxArrivalBytesPerOwner: 4 * 1024 * 1024,
  maxArrivalBytes: 16 * 1024 * 1024,
  maxHandshakes: 128,
  handshakeTimeoutMs: 10_000,
};
