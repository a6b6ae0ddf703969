// Ends a forwarder between two calls as a power cut ends a machine, but for the node, which lives on: from then on nothing that the
// forwarder does reaches the node, and its disk has lost what was not synced. Deaths in a call: kill-scene.ts.

import { FATES, UnsyncedDisk } from "../../../sandbox/machine/unsynced-disk.ts";
import { type AtStep, nameOf, withCrashPoints } from "../../../sandbox/process/crash-points.ts";
import type { ExclusiveLock } from "../../../src/kernel/index.ts";
import type { Host, HostLocks } from "../../../src/node/host.ts";

/** One forwarder, from its start to its crash. */
interface Life {
  isOver: boolean;
  readonly ending: (() => unknown)[];
}

/**
 * Ends the forwarder under test. Its memory lives on in this process, but each further step of it fails; reads continue, they leave
 * no trace.
 */
export class Crashes {
  /** Of the forwarder that runs, or of the next one. */
  disk = new UnsyncedDisk();
  #life: Life = { isOver: false, ending: [] };
  #count = 0;

  /** Ends it now, wherever it is; the next host belongs to another one. Each time something else of what was not synced is left. */
  end(): void {
    this.#life.isOver = true;
    for (const end of this.#life.ending) end();
    this.#life = { isOver: false, ending: [] };
    const fates = Object.values(FATES);
    this.disk = this.disk.afterPowerCut(fates[this.#count++ % fates.length] ?? (() => false));
  }

  /** The host of the next forwarder. */
  readonly between = (host: Host): Host => {
    const life = this.#life;
    const at: AtStep = async (step, act) => {
      const result = life.isOver ? undefined : await act();
      if (life.isOver) throw new Error(`The forwarder died before it could ${nameOf(step)}`);
      return result as Awaited<ReturnType<typeof act>>;
    };
    const watched = withCrashPoints({ ...host, disk: this.disk }, at);
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
}
