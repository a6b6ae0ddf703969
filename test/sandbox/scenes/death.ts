/** The one death of a round: it comes when every call is where it shall be. */
export class Death {
  readonly #die: () => Promise<void>;
  readonly #over = Promise.withResolvers<void>();
  readonly #allButOne = Promise.withResolvers<void>();
  #missing: number;

  constructor(calls: number, die: () => Promise<void>) {
    this.#missing = calls;
    this.#die = die;
    for (const { promise } of [this.#over, this.#allButOne]) promise.catch(() => {}); // its waiter gets it
    if (calls === 1) this.#allButOne.resolve();
  }

  /** Resolves when every other call is where it shall be. */
  get onlyOneIsMissing(): Promise<void> {
    return this.#allButOne.promise;
  }

  /** The call is where it shall be. Resolves when the next forwarder serves. */
  async comes(): Promise<void> {
    this.#missing -= 1;
    if (this.#missing === 1) this.#allButOne.resolve();
    if (this.#missing === 0) this.#die().then(this.#over.resolve, this.#over.reject);
    await this.#over.promise;
  }

  fail(cause: unknown): void {
    this.#over.reject(cause);
    this.#allButOne.reject(cause);
  }
}
