import { guarded } from "./event-guard.ts";
/**
 * Runs jobs of one key one at a time, in the order they came; jobs of different keys do not wait for each other.
 * A key without jobs takes no memory.
 */
export class KeyedQueue<K> {
  readonly #tails = new Map<K, Promise<void>>();
  #waiting = 0;

  /** How many keys have a job running or waiting. */
  get busyKeys(): number {
    return this.#tails.size;
  }

  /** Resolves when no key has a job any more. */
  async idle(): Promise<void> {
    while (this.#tails.size > 0) await Promise.all(this.#tails.values());
  }

  /** How many jobs have not had their turn yet. */
  get waiting(): number {
    return this.#waiting;
  }

  /**
   * Runs the job when its turn comes. A job whose signal is aborted while it waits is dropped and never runs:
   * its caller has gone. One that runs is waited for whatever the signal says: what it does to the node
   * must be over before its caller acts on its failure.
   * @throws the job's own error, or the signal's reason when it was dropped.
   */
  run<T>(key: K, job: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    let isWaiting = true;
    this.#waiting += 1;
    const result = before.then(() => {
      this.#waiting -= 1;
      signal?.throwIfAborted();
      isWaiting = false;
      return job();
    });
    const tail = result.then(
      () => {},
      () => {},
    );
    this.#tails.set(key, tail);
    void tail.then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    });
    return signal ? raceAbort(result, signal, () => isWaiting) : result;
  }
}

/** Lets a waiting caller go at once when its signal is aborted, though its turn has not come yet. */
function raceAbort<T>(work: Promise<T>, signal: AbortSignal, isWaiting: () => boolean): Promise<T> {
  return new Promise((resolve, reject) => {
    const aborted = guarded("abort", () => {
      if (isWaiting()) reject(signal.reason);
    });
    if (signal.aborted) aborted();
    signal.addEventListener("abort", aborted, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", aborted));
  });
}
