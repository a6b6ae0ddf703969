// Writes that the kernel may hold for long: an unbind waits until user space has closed the device. They run in threads of
// their own, so that neither the main thread nor libuv's pool of four ever waits with them.
import { Worker } from "node:worker_threads";
import { type Clock, systemClock } from "../async/index.ts";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";

/** Threads that work side by side; further writes wait for one of them. */
const THREADS = 4;
/** Writes that may hang at the same time; beyond that something is badly wrong and more threads would not mend it. */
const STUCK_LIMIT = 32;

/** The thread: opens, writes once, closes, answers. As text, so that it needs no file beside the bundle. */
const threadSource = `
const { parentPort } = require("node:worker_threads");
const fs = require("node:fs");
parentPort.on("message", ({ path, text }) => {
  try {
    const fd = fs.openSync(path, fs.constants.O_WRONLY);
    try { fs.writeSync(fd, text); } finally { fs.closeSync(fd); }
    parentPort.postMessage(0);
  } catch (error) {
    parentPort.postMessage(-error.errno || 5);
  }
});
`;

interface Job {
  readonly path: string;
  readonly text: string;
  readonly settle: (errno: number) => void;
  /** Its limit has passed; nobody waits for it any more. */
  isLate: boolean;
}

/** A few threads that write. One that hangs is left alone, and another one takes its place. */
export class BlockingWrites {
  readonly #clock: Clock;
  readonly #idle: Worker[] = [];
  readonly #waiting: Job[] = [];
  #busy = 0;
  #stuck = 0;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  /** Writes that passed their limit and have not returned. As long as there are any, the process cannot exit by itself. */
  get stuckCount(): number {
    return this.#stuck;
  }

  /**
   * Opens an existing file and writes a text in one write.
   * @throws {KernelError} the kernel's errno; ETIMEDOUT when it does not return within the limit (it goes on hanging and
   * may still take effect); EBUSY when too many writes hang already.
   */
  write(path: string, text: string, limitMs: number): Promise<void> {
    const op = `write ${JSON.stringify(text.trim())} to ${path}`;
    return new Promise((resolve, reject) => {
      const settle = (errno: number) => {
        limit.cancel();
        if (errno === 0) resolve();
        else reject(new KernelError(op, errno));
      };
      const job: Job = { path, text, settle, isLate: false };
      const limit = this.#clock.after(limitMs, () => {
        this.#giveUp(job);
        reject(new KernelError(op, Errno.ETIMEDOUT, `the kernel did not finish within ${limitMs} ms`));
      });
      this.#waiting.push(job);
      this.#next();
    });
  }

  /** Ends the threads that are not in a write. */
  async close(): Promise<void> {
    await Promise.all(this.#idle.splice(0).map((thread) => thread.terminate()));
  }

  #next(): void {
    while (this.#busy < THREADS) {
      const job = this.#waiting.shift();
      if (!job) return;
      if (this.#stuck >= STUCK_LIMIT) job.settle(Errno.EBUSY);
      else this.#run(job, this.#idle.pop() ?? startThread());
    }
  }

  #run(job: Job, thread: Worker): void {
    this.#busy += 1;
    thread.once("message", (errno: number) => this.#returned(job, thread, errno));
    thread.postMessage({ path: job.path, text: job.text });
  }

  #returned(job: Job, thread: Worker, errno: number): void {
    if (job.isLate) {
      this.#stuck -= 1;
      void thread.terminate();
      return;
    }
    this.#busy -= 1;
    this.#idle.push(thread);
    job.settle(errno);
    this.#next();
  }

  #giveUp(job: Job): void {
    job.isLate = true;
    const waitingAt = this.#waiting.indexOf(job);
    if (waitingAt >= 0) {
      this.#waiting.splice(waitingAt, 1);
      return;
    }
    this.#stuck += 1;
    this.#busy -= 1;
    this.#next();
  }
}

function startThread(): Worker {
  const thread = new Worker(threadSource, {
    eval: true,
    env: {},
    // It does nothing but wait and write.
    resourceLimits: { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2 },
  });
  thread.unref();
  return thread;
}
