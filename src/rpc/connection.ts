import type { PassedFds } from "../kernel/index.ts";

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

/** Our certificate, and our judgement of the peer's. Read again for each connection, so a new certificate needs no restart. */
export interface TlsIdentity {
  credentials(): TlsCredentials;
  /**
   * Decides whether the peer may talk to us, before anything that it says is read.
   * @param chainDer leaf first; empty when the peer sent no certificate
   * @throws with the reason when it may not
   */
  verifyPeer(chainDer: readonly Buffer[]): PeerIdentity;
  /** Calls back at each change of our certificate, until the returned function is called. */
  onRotate(listener: () => void): () => void;
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
   * connection; calls under way continue. False when it was sent away before and showed the same again: then it has none.
   */
  renew(): boolean;
}

let count = 0;

/** Makes the connection that calls see of the one that a transport has. */
export function openConnection(facts: Omit<Connection, "id" | "renew">, renew: () => boolean): Connection {
  const { peer, fds, remote, shown, closed } = facts;
  return { id: String(count++), peer, fds, remote, shown, closed, renew };
}
