import type { Duplex } from "node:stream";

/** A connection in its handshake. */
export interface Arrival {
  readonly stream: Duplex;
  /** What it comes from, as far as the kernel says: the process, or the address. */
  readonly source: string;
}

/**
 * Connections that are in their handshake, bounded in number. Where there is no room for one more, one of the source that has
 * most goes: its oldest that has said nothing whole, or else its oldest. So who floods takes the places of its own, and a peer that
 * only connects takes no place of one that speaks.
 */
export class Handshakes {
  readonly #most: number;
  /** Both oldest first. */
  readonly #silent = new Set<Duplex>();
  readonly #speaking = new Set<Duplex>();
  readonly #sources = new Map<Duplex, string>();

  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#sources.size;
  }

  /** Takes one in; what has to go for it is counted no more from this moment, and ends. */
  add({ stream, source }: Arrival): void {
    if (this.size >= this.#most) {
      const oldest = this.#oldestOfLargest(source);
      if (oldest) this.#evict(oldest);
    }
    this.#silent.add(stream);
    this.#sources.set(stream, source);
  }

  /** It has said something whole. */
  spoke(stream: Duplex): void {
    if (this.#silent.delete(stream)) this.#speaking.add(stream);
  }

  /** Its handshake is over, in whatever way. */
  delete(stream: Duplex): void {
    this.#silent.delete(stream);
    this.#speaking.delete(stream);
    this.#sources.delete(stream);
  }

  endAll(): void {
    for (const stream of [...this.#silent, ...this.#speaking]) this.#evict(stream);
  }

  /** With one more of that source. */
  #oldestOfLargest(newcomer: string): Duplex | undefined {
    const counts = new Map([[newcomer, 1]]);
    for (const source of this.#sources.values()) counts.set(source, (counts.get(source) ?? 0) + 1);
    const largest = Math.max(...counts.values());
    return [...this.#silent, ...this.#speaking].find(
      (stream) => counts.get(this.#sources.get(stream) ?? "") === largest,
    );
  }

  #evict(stream: Duplex): void {
    this.delete(stream);
    stream.destroy(new Error("too many handshakes at once, or the server is stopping"));
  }
}
