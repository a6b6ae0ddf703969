import type { PeerIdentity } from "./connection.ts";

/** Certificates that are remembered; those of a node's peers are a few dozen. */
const MOST = 256;

/**
 * Which peers were sent away to a new connection, so that one whose certificate is the same there is not sent away again
 * and again: then it has not rotated, and what is wrong with it stays wrong.
 */
export class Renewals {
  readonly #requested = new Map<string, number>();
  #opened = 0;

  /** For each connection as it opens. What it returns says whether the peer may be sent away, and counts as doing so. */
  opened(peer: PeerIdentity | undefined): () => boolean {
    const place = ++this.#opened;
    return () => {
      if (peer === undefined) return false;
      const lastBefore = this.#requested.get(peer.certificatePem);
      if (lastBefore !== undefined) return place <= lastBefore;
      const [oldest] = this.#requested.keys();
      if (oldest !== undefined && this.#requested.size >= MOST) this.#requested.delete(oldest);
      this.#requested.set(peer.certificatePem, this.#opened);
      return true;
    };
  }
}
