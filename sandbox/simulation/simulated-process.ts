// One forwarder as a process of the simulated node: all that it does to others passes its clock, its transport and its host, so that it
// can die between any two steps, as a process does, and so that what it has not let go of can be counted.
import type { Clock, Timer } from "../../src/async/index.ts";
import type { ExclusiveLock, Netns, Rtnl } from "../../src/kernel/index.ts";
import type { Host } from "../../src/node/index.ts";
import type { Transport } from "../../src/rpc/index.ts";
import { nameOf, type Step, withCrashPoints } from "../process/crash-points.ts";

export interface ProcessParts {
  readonly clock: Clock;
  readonly transport: Transport;
  /** How long one step takes on its way, before it is done and after; asked again for each. */
  readonly stepMs: () => number;
  /** Each step, before and after it is done. May end the process. */
  readonly onStep: (step: string, when: "before" | "after") => void;
}

const never = new Promise<never>(() => {});

export class SimulatedProcess {
  readonly clock: Clock;
  readonly transport: Transport;
  readonly #parts: ProcessParts;
  #isOver = false;
  readonly #timers = new Set<Timer>();
  readonly #connections = new Set<{ cut(): void }>();
  readonly #listeners = new Set<{ close(): void }>();
  readonly #sockets = new Set<Rtnl>();
  readonly #namespaces = new Set<Netns>();
  readonly #locks = new Set<ExclusiveLock>();
  readonly #watches = new Set<() => void>();

  constructor(parts: ProcessParts) {
    this.#parts = parts;
    this.clock = this.#clockOf(parts.clock);
    this.transport = this.#transportOf(parts.transport);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** What it has not let go of, in words; of one that has stopped there is nothing. */
  get left(): readonly string[] {
    const counts = {
      timers: this.#timers,
      connections: this.#connections,
      "listening sockets": this.#listeners,
      "netlink sockets": this.#sockets,
      namespaces: this.#namespaces,
      locks: this.#locks,
      watches: this.#watches,
    };
    return Object.entries(counts).flatMap(([what, { size }]) => (size > 0 ? [`${size} ${what}`] : []));
  }

  /** It dies here and now. What it has begun and the node has not seen is never done; what the kernel frees of the dead is freed. */
  end(): void {
    this.#isOver = true;
    for (const timer of this.#timers) timer.cancel();
    for (const listener of this.#listeners) listener.close();
    for (const connection of [...this.#connections]) connection.cut();
    for (const stop of [...this.#watches]) stop();
    for (const socket of [...this.#sockets]) socket.close();
    for (const namespace of [...this.#namespaces]) namespace.close();
    for (const lock of [...this.#locks]) lock.release();
  }

  /** The node as this process sees it. */
  host(host: Host): Host {
    const watched = withCrashPoints(host, (step, act) => this.#step(step, act));
    return {
      ...watched,
      openRtnl: (netns) => kept(this.#sockets, watched.openRtnl(netns), "close"),
      netnsOf: (fd) => this.#keepNamespace(host.netnsOf(fd)),
      locks: {
        folder: async (...args) => kept(this.#locks, await host.locks.folder(...args), "release"),
        pf: (address) => {
          const lock = host.locks.pf(address);
          return lock && kept(this.#locks, lock, "release");
        },
      },
      openAccess: (parts) => {
        const access = watched.openAccess(parts);
        const close = () => {
          this.#watches.delete(close);
          return access.close();
        };
        this.#watches.add(close);
        return { ...access, close } as typeof access;
      },
      uevents: {
        subscribe: (listener) => this.#watch(host.uevents.subscribe(listener)),
        close: () => {},
      },
      watchFolder: (path, clock) => {
        const folder = host.watchFolder(path, clock);
        const close = this.#watch(() => folder.close());
        return { ...folder, close };
      },
    };
  }

  async #step<T>(step: Step, act: () => Promise<T>): Promise<T> {
    const name = nameOf(step);
    await this.#pass(name, "before");
    const result = await act();
    await this.#pass(name, "after");
    return result;
  }

  async #pass(step: string, when: "before" | "after"): Promise<void> {
    await this.clock.sleep(this.#parts.stepMs());
    this.#parts.onStep(step, when);
    if (this.#isOver) await never;
  }

  #watch(stop: () => void): () => void {
    const once = () => {
      this.#watches.delete(once);
      stop();
    };
    this.#watches.add(once);
    return once;
  }

  /** Its copies are counted, too. */
  #keepNamespace(netns: Netns): Netns {
    const dup = netns.dup.bind(netns);
    return kept(this.#namespaces, Object.assign(netns, { dup: () => this.#keepNamespace(dup()) }), "close");
  }

  #clockOf(clock: Clock): Clock {
    const after: Clock["after"] = (delayMs, callback) => {
      if (this.#isOver) return { cancel() {} };
      const timer = {
        cancel: () => {
          this.#timers.delete(timer);
          set.cancel();
        },
      };
      const set = clock.after(delayMs, () => {
        this.#timers.delete(timer);
        callback();
      });
      this.#timers.add(timer);
      return timer;
    };
    return {
      now: () => clock.now(),
      monotonicMs: () => clock.monotonicMs(),
      after,
      sleep: (delayMs, signal) =>
        new Promise((resolve, reject) => {
          if (signal?.aborted) return reject(signal.reason);
          const aborted = () => {
            timer.cancel();
            reject(signal?.reason);
          };
          const timer = after(delayMs, () => {
            signal?.removeEventListener("abort", aborted);
            resolve();
          });
          signal?.addEventListener("abort", aborted, { once: true });
        }),
    };
  }

  #transportOf(transport: Transport): Transport {
    const keep = <C extends { cut(): void; readonly closed: AbortSignal }>(connection: C): C => {
      this.#connections.add(connection);
      connection.closed.addEventListener("abort", () => this.#connections.delete(connection), { once: true });
      return connection;
    };
    return {
      identify: (target) => transport.identify(target),
      dial: async (options) => {
        if (this.#isOver) return await never;
        const connection = keep(await transport.dial(options));
        if (!this.#isOver) return connection;
        connection.cut();
        return await never;
      },
      listen: async (options) => {
        if (this.#isOver) return await never;
        const connected: typeof options.connected = (connection) => options.connected(keep(connection));
        const listener = await transport.listen({ ...options, connected });
        return kept(this.#listeners, listener, "close");
      },
    };
  }
}

/** Counted until it is let go of. */
function kept<K extends string, T extends { [key in K]: () => void }>(
  all: Set<{ [key in K]: () => void }>,
  one: T,
  end: K,
): T {
  const letGo = one[end].bind(one);
  all.add(one);
  return Object.assign(one, {
    [end]: () => {
      all.delete(one);
      letGo();
    },
  });
}
