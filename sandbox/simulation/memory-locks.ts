import { Errno, type ExclusiveLock, KernelError } from "../../src/kernel/index.ts";
import type { HostLocks } from "../../src/node/index.ts";
import type { PfLocks } from "../nic/pf-locks.ts";

/** Locks that processes in memory take. Who dies has to release them: the kernel would. */
export class MemoryLocks implements PfLocks {
  readonly folder = "/nonexistent";
  readonly #pfs = new Set<string>();
  readonly #held = new Map<string, PromiseWithResolvers<void>>();

  readonly locks: HostLocks = {
    folder: async (path, { onHeld, signal }) => {
      for (;;) {
        signal.throwIfAborted();
        const lock = this.#take(path);
        if (lock) return lock;
        onHeld();
        const given = Promise.withResolvers<void>();
        signal.addEventListener("abort", () => given.reject(signal.reason), { once: true });
        void this.#held.get(path)?.promise.then(given.resolve);
        await given.promise;
      }
    },
    pf: (address) => {
      if (!this.#pfs.has(address)) throw new KernelError(`lock ${address}`, Errno.ENOENT);
      return this.#take(address);
    },
  };

  /** What is locked now. */
  get held(): readonly string[] {
    return [...this.#held.keys()];
  }

  add(address: string): void {
    this.#pfs.add(address);
  }

  remove(address: string): void {
    this.#pfs.delete(address);
  }

  close(): void {}

  #take(name: string): ExclusiveLock | undefined {
    if (this.#held.has(name)) return undefined;
    const own = Promise.withResolvers<void>();
    this.#held.set(name, own);
    return {
      isCurrent: () => this.#held.get(name) === own,
      release: () => {
        if (this.#held.get(name) === own) this.#held.delete(name);
        own.resolve();
      },
    };
  }
}
