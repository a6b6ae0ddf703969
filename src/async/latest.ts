import { guarded } from "./event-guard.ts";
/** A value that changes over time and can be awaited: the SVID, a device list, a health state. */
export class Latest<T> {
  #value: T | undefined;
  readonly #listeners = new Set<(value: T) => void>();

  constructor(initial?: T) {
    this.#value = initial;
  }

  /** The value now; undefined as long as none was set. */
  get value(): T | undefined {
    return this.#value;
  }

  /** Sets the value and notifies every listener, in the order they came. */
  set(value: T): void {
    this.#value = value;
    for (const listener of [...this.#listeners]) listener(value);
  }

  /** Calls back at every later `set`. Returns how to stop. */
  onChange(listener: (value: T) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The value as soon as there is one; rejects with the signal's reason when it is aborted first. */
  first(signal?: AbortSignal): Promise<T> {
    if (this.#value !== undefined) return Promise.resolve(this.#value);
    return this.next(signal);
  }

  /** The value of the next `set`. */
  next(signal?: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const stop = this.onChange((value) => {
        stop();
        signal?.removeEventListener("abort", aborted);
        resolve(value);
      });
      const aborted = guarded("abort", () => {
        stop();
        reject(signal?.reason);
      });
      signal?.addEventListener("abort", aborted, { once: true });
    });
  }
}
