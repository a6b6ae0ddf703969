// Ends a forwarder as SIGKILL does: from then on nothing that it does reaches the disk, the kernel or the endpoint.

import { hostWithSteps, interceptSteps, type StepTaker } from "../../sandbox/steps.ts";
import type { ExclusiveLock } from "../../src/kernel/index.ts";
import type { Host, HostLocks } from "../../src/node/host.ts";
import { RpcClient } from "../../src/rpc/index.ts";

/** One forwarder, from its start to its crash. */
interface Life {
  isOver: boolean;
  readonly ending: (() => unknown)[];
}

/**
 * Ends the forwarder under test. Its memory lives on in this process, but each further step of it fails; reads go on, they leave
 * no trace.
 */
export class Crashes implements StepTaker {
  #life: Life = { isOver: false, ending: [] };
  readonly #owners = new WeakMap<object, Life>();

  /** Ends it now, wherever it is; the next host belongs to another one. */
  end(): void {
    this.#life.isOver = true;
    for (const end of this.#life.ending) end();
    this.#life = { isOver: false, ending: [] };
  }

  /** The host of the next forwarder. */
  readonly between = (host: Host): Host => {
    const life = this.#life;
    const watched = hostWithSteps(this, host);
    const openAccess: Host["openAccess"] = (parts) => {
      const access = watched.openAccess(parts);
      life.ending.push(() => access.close()); // what a dead forwarder kept is kept no more
      return access;
    };
    const ended = <T extends ExclusiveLock | undefined>(lock: T): T => {
      life.ending.push(() => lock?.release()); // the kernel frees the locks of the dead
      return lock;
    };
    const { locks } = watched;
    const folder: HostLocks["folder"] = async (...args) => ended(await locks.folder(...args));
    return { ...watched, openAccess, locks: { folder, pf: (address) => ended(locks.pf(address)) } };
  };

  /** Takes the steps that no host is asked for. Returns how to leave them be. */
  intercept(): () => void {
    // The machine and the pods of the sandbox use the same class; they do not crash.
    const leave = interceptSteps(this, () => new Error().stack?.includes("/src/netdev/") ?? false);
    const { call } = RpcClient.prototype;
    const crashes = this;
    RpcClient.prototype.call = function (this: RpcClient, ...args: Parameters<typeof call>) {
      const isOurs = new Error().stack?.includes("/src/nsm/downstream.ts");
      return isOurs && crashes.#lifeOf(this).isOver ? new Promise(() => {}) : call.apply(this, args);
    } as typeof call;
    return () => {
      leave();
      RpcClient.prototype.call = call;
    };
  }

  opened(part: object): void {
    this.#owners.set(part, this.#life);
  }

  /** Of a journal or a client, which one forwarder makes for itself: it is known by its first use. */
  #lifeOf(part: object): Life {
    const life = this.#owners.get(part) ?? this.#life;
    this.#owners.set(part, life);
    return life;
  }

  async take<T>(part: object, what: string, act: () => Promise<T>): Promise<T> {
    const life = this.#lifeOf(part);
    const result = life.isOver ? undefined : await act();
    if (life.isOver) throw new Error(`The forwarder died before it could ${what}`);
    return result as T;
  }
}
