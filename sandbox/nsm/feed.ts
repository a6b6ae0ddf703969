/** Values pushed by one side and read one by one by the other: the body of a server stream. */
export class Feed<T> implements AsyncIterable<T> {
  readonly #values: T[] = [];
  #wake = Promise.withResolvers<void>();
  #ended = false;

  /** A feed that ends when the signal is aborted: the caller of the stream has gone. */
  constructor(signal: AbortSignal) {
    if (signal.aborted) this.end();
    signal.addEventListener("abort", () => this.end(), { once: true });
  }

  push(value: T): void {
    if (this.#ended) return;
    this.#values.push(value);
    this.#wake.resolve();
  }

  /** Ends the feed after what was pushed so far. */
  end(): void {
    this.#ended = true;
    this.#wake.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    while (true) {
      for (let value = this.#values.shift(); value !== undefined; value = this.#values.shift()) yield value;
      if (this.#ended) return;
      await this.#wake.promise;
      this.#wake = Promise.withResolvers();
    }
  }
}
