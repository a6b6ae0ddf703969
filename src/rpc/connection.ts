import { setMaxListeners } from "node:events";
import type { Http2Session } from "node:http2";
import type { Duplex } from "node:stream";
import { guarded } from "../async/index.ts";
import type { PassedFds } from "../kernel/index.ts";
import { RpcError } from "./status.ts";

/** Who is at the other end of a TLS connection, as the verification of its certificate found. */
export interface PeerIdentity {
  readonly spiffeId: string;
  /** The leaf certificate. */
  readonly certificatePem: string;
  /** Begin of the leaf's validity, milliseconds since 1970. */
  readonly notBeforeMs: number;
  /** End of the leaf's validity, milliseconds since 1970. */
  readonly notAfterMs: number;
}

/** What we show a peer of ourselves. */
export interface TlsCredentials {
  readonly certChainPem: string;
  readonly keyPem: string;
}

/** One connection with a peer, over which many calls may go, in both our roles. */
export interface Connection {
  /** Unique in this process; means nothing outside. */
  readonly id: string;
  /** Undefined when the connection is not TLS. */
  readonly peer: PeerIdentity | undefined;
  /** Descriptors that travel with this connection; undefined where none can (TCP). */
  readonly fds: PassedFds | undefined;
  /** The other end, for logs: an address, or `pid 123` on a unix socket. */
  readonly remote: string;
  /** What the peer has seen of us, and goes by until the end: a token for it is signed with this key, however old it is. */
  readonly shown: TlsCredentials | undefined;
  /** Aborted as soon as the connection is closed or lost; the reason says why. */
  readonly closed: AbortSignal;
  /**
   * Takes no further call, for the peer seems to have a newer certificate than it shows here, and will show it to a new
   * connection; calls under way go on. False when it was asked before and showed the same again: then it has none.
   */
  renew(): boolean;
}

/** What a connection is made from. */
export type ConnectionFacts = Pick<Connection, "peer" | "shown" | "fds" | "remote" | "renew">;

let count = 0;

/** Makes a connection, and the function that tells its holders that it has ended. */
export function openConnection(facts: ConnectionFacts): { connection: Connection; ended(why: string): void } {
  const controller = new AbortController();
  // Every call and every stored descriptor of a peer may listen: ten are no sign of a leak here.
  setMaxListeners(0, controller.signal);
  return {
    connection: { id: String(count++), ...facts, closed: controller.signal },
    ended(why) {
      if (!controller.signal.aborted) controller.abort(new RpcError("UNAVAILABLE", why));
    },
  };
}

/**
 * Ends a connection now. A session alone, once it has said GOAWAY, waits for the peer to close: some never do.
 * The stream beneath it gets one turn of the loop for the last frames.
 */
export function cut(session: Http2Session, raw: Duplex): void {
  session.destroy();
  setImmediate(guarded("http2-session", () => void raw.destroy()));
}
