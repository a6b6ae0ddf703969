import type { Duplex } from "node:stream";

/**
 * Connections that are in their handshake, bounded in number. Where there is no room for one more the oldest that has said
 * nothing whole goes, or else the oldest: a peer that only connects takes no place of one that speaks.
 */
export class Handshakes {
  readonly #most: number;
  /** Both oldest first. */
  readonly #silent = new Set<Duplex>();
  readonly #speaking = new Set<Duplex>();

  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#silent.size + this.#speaking.size;
  }

  /** Takes one in; what has to go for it is counted no more from this moment, and ends. */
  add(stream: Duplex): void {
    if (this.size >= this.#most) {
      const [silent] = this.#silent;
      const [speaking] = this.#speaking;
      const oldest = silent ?? speaking;
      if (oldest) this.#evict(oldest);
    }
    this.#silent.add(stream);
  }

  /** It has said something whole. */
  spoke(stream: Duplex): void {
    if (this.#silent.delete(stream)) this.#speaking.add(stream);
  }

  /** Its handshake is over, in whatever way. */
  delete(stream: Duplex): void {
    this.#silent.delete(stream);
    this.#speaking.delete(stream);
  }

  endAll(): void {
    for (const stream of [...this.#silent, ...this.#speaking]) this.#evict(stream);
  }

  #evict(stream: Duplex): void {
    this.delete(stream);
    stream.destroy(new Error("too many handshakes at once, or the server is stopping"));
  }
}
