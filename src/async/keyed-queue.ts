import { guarded } from "./event-guard.ts";

/** The jobs of one key. */
interface Line {
  /** Settles when the last of them has ended. */
  tail: Promise<void>;
  waiting: number;
}

/**
 * Runs jobs of one key one at a time, in the order they came; jobs of different keys do not wait for each other.
 * A key without jobs takes no memory.
 */
export class KeyedQueue<K> {
  readonly #lines = new Map<K, Line>();

  /** How many keys have a job running or waiting. */
  get busyKeys(): number {
    return this.#lines.size;
  }

  /** Resolves when no key has a job any more. */
  async idle(): Promise<void> {
    while (this.#lines.size > 0) await Promise.all([...this.#lines.values()].map(({ tail }) => tail));
  }

  /** How many jobs have not had their turn yet. */
  get waiting(): number {
    return [...this.#lines.values()].reduce((sum, { waiting }) => sum + waiting, 0);
  }

  /** How many of them are this key's. */
  waitingFor(key: K): number {
    return this.#lines.get(key)?.waiting ?? 0;
  }

  /**
   * Runs the job when its turn comes. A job whose signal is aborted while it waits is dropped at once and never runs: its caller
   * has gone, and what the job holds goes with it. One that runs is waited for whatever the signal says: what it does to the node
   * must be over before its caller acts on its failure.
   * @throws the job's own error, or the signal's reason when it was dropped.
   */
  run<T>(key: K, job: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const line = this.#lines.get(key) ?? { tail: Promise.resolve(), waiting: 0 };
    const waiter = new Waiter(line, job);
    const result = line.tail.then(() => waiter.begin(signal));
    const tail = result.then(
      () => {},
      () => {},
    );
    line.tail = tail;
    this.#lines.set(key, line);
    void tail.then(() => {
      if (line.tail === tail) this.#lines.delete(key);
    });
    return signal ? raceAbort(result, signal, () => waiter.drop()) : result;
  }
}

/** A job until its turn comes or its caller goes: nothing else holds it, so its memory is free when it is dropped. */
class Waiter<T> {
  readonly #line: Line;
  #job: (() => Promise<T>) | undefined;

  constructor(line: Line, job: () => Promise<T>) {
    this.#line = line;
    this.#job = job;
    line.waiting += 1;
  }

  begin(signal: AbortSignal | undefined): Promise<T> {
    const job = this.#job;
    this.drop();
    signal?.throwIfAborted();
    if (!job) throw new Error("Cannot run a job that was dropped"); // its signal has said why
    return job();
  }

  /** Whether it waited. */
  drop(): boolean {
    if (!this.#job) return false;
    this.#job = undefined;
    this.#line.waiting -= 1;
    return true;
  }
}

/** Lets a waiting caller go at once when its signal is aborted, though its turn has not come yet. */
function raceAbort<T>(work: Promise<T>, signal: AbortSignal, drop: () => boolean): Promise<T> {
  return new Promise((resolve, reject) => {
    const aborted = guarded("abort", () => {
      if (drop()) reject(signal.reason);
    });
    if (signal.aborted) aborted();
    signal.addEventListener("abort", aborted, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", aborted));
  });
}
