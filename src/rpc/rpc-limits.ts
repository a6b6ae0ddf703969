import type { RateLimits } from "./rate.ts";
import type { ShareLimits } from "./shares.ts";

/** Bounds that keep one peer from using up the process. */
export interface RpcLimits {
  /** Longest message that is read, in bytes, whatever its method allows. */
  readonly maxMessageBytes: number;
  /** Calls that one peer may have open at once on one connection, where it may have so many; the manager may have all of its own. */
  readonly maxConcurrentCalls: number;
  /** Calls open at once, on all connections. */
  readonly calls: ShareLimits;
  /** Connections that a server holds at once; for a further one an idle one ends (peer-limits.ts). */
  readonly connections: ShareLimits;
  /** Connections that a client holds or dials at once, by whose call they were dialled for; for a further one an idle one ends, too. */
  readonly dials: ShareLimits;
  /** Sockets of endpoints that came as descriptors, by whose call they were kept for; for a further one an idle one is closed. */
  readonly endpointSockets: ShareLimits;
  /** Bytes of requests whose rest is awaited; on one connection four messages. */
  readonly arrivalBytes: ShareLimits;
  /** Bytes of answers that have not left for their peer: it may not read, and HTTP/2 lets it say so for each call. */
  readonly answerBytes: ShareLimits;
  /** Elements of requests that are decoded in a second: decoded, one takes some 300 bytes until it is collected. */
  readonly decodedElements: RateLimits;
  /** Bytes that requests take which are decoded and whose calls have not ended (held-requests.ts). */
  readonly heldBytes: ShareLimits;
  /** Descriptors that peers have passed and no call has taken; of peers that are not known yet, all together. */
  readonly descriptors: ShareLimits;
  readonly unknownDescriptors: number;
  /** Connections that may be in their handshake at once; a further one takes the place of the oldest. */
  readonly maxHandshakes: number;
  /** Time for TLS and the first HTTP/2 frame of an accepted connection, in ms. */
  readonly handshakeTimeoutMs: number;
}

const MIB = 1024 * 1024;

/** Far above what a node's own peers request, low enough that a hostile one cannot take the memory. */
export const defaultLimits: RpcLimits = {
  maxMessageBytes: 256 * 1024,
  // A manager may watch and request every connection of a node with 256 virtual functions over one connection of its own.
  maxConcurrentCalls: 1024,
  calls: { each: 512, others: 2048, manager: 1024 },
  connections: { each: 192, others: 768, manager: 256 },
  // An endpoint that serves a connection is listened to, and each has one connection, or two after a rotation.
  dials: { each: 96, others: 512, manager: 128 },
  // As the connections that they lead to.
  endpointSockets: { each: 96, others: 512, manager: 128 },
  arrivalBytes: { each: 3 * MIB, others: 12 * MIB, manager: 4 * MIB },
  // All connections that a manager may have, in one message, are 8.5 MiB.
  answerBytes: { each: 2 * MIB, others: 8 * MIB, manager: 12 * MIB },
  // 256 clients that come back at once, with 300 elements each, are 77,000.
  decodedElements: { each: 128 * 1024, others: 128 * 1024 },
  // A node's 256 clients that come back at once take 18 MiB, as they are counted; some third of that is real.
  heldBytes: { each: 8 * MIB, others: 32 * MIB, manager: 32 * MIB },
  descriptors: { each: 384, others: 1536, manager: 512 },
  unknownDescriptors: 64,
  maxHandshakes: 128,
  handshakeTimeoutMs: 10_000,
};
