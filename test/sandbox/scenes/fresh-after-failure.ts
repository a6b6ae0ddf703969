// What the tests of a file share because it takes long to start, for as long as they pass.

/** One such thing, for one test at a time: what a test that fails leaves is of no use to the next, which gets a fresh one. */
export class SharedUntilFailure<T> {
  readonly #open: () => Promise<T>;
  readonly #close: (shared: T) => Promise<void>;
  #sound: T | undefined;

  constructor(open: () => Promise<T>, close: (shared: T) => Promise<void>) {
    this.#open = open;
    this.#close = close;
  }

  /** Runs a test on it; it is opened where there is none. */
  async run<R>(test: (shared: T) => Promise<R>): Promise<R> {
    const shared = this.#sound ?? (await this.#open());
    this.#sound = undefined;
    try {
      const result = await test(shared);
      this.#sound = shared;
      return result;
    } catch (error) {
      await this.#close(shared).catch(() => {}); // its test has failed, and that is the failure to see
      throw error;
    }
  }

  /** After the last test: closes what is sound, and fails where that fails. */
  async close(): Promise<void> {
    const shared = this.#sound;
    this.#sound = undefined;
    if (shared !== undefined) await this.#close(shared);
  }
}
