import { guarded } from "../async/index.ts";
import { type BorrowedFd, Fd, type FileId, fileKey } from "./fd.ts";

/** How many received descriptors one connection may have lying here; a peer that sends more loses its oldest ones. */
export const HELD_FDS_LIMIT = 256;

/** The same while the peer is not known. Honest ones pass what a call names with that call, when both know each other. */
export const UNKNOWN_PEER_FDS_LIMIT = 8;

/**
 * A connection that we accepted ends when it has passed so many times what may lie here since one of them was last named: receiving
 * and closing them costs the main thread, and no honest peer passes what it does not name.
 */
const UNNAMED_FACTOR = 4;

/** Where descriptors that lie here count besides, for example for all connections of one peer. */
export interface FdBudget {
  /** Takes them all, or none and answers false. */
  take(count: number): boolean;
  give(count: number): void;
}

const noBudget: FdBudget = { take: () => true, give() {} };

/** Descriptors that travel with the bytes of one unix stream, beneath everything that is spoken on it. */
export interface PassedFds {
  /** Queues a duplicate; it leaves with the next bytes that are written. The caller keeps its own descriptor. */
  send(fd: BorrowedFd): void;
  /**
   * The descriptor of that file, as soon as the peer has sent it. The caller owns it and closes it. The connection keeps a
   * copy, since a peer names a file many times and sends it once; see `release`.
   * @throws the signal's reason, or an error when the connection ends first or the kernel could not keep what came.
   */
  receive(id: FileId, signal: AbortSignal): Promise<Fd>;
  /** A call that names the file has come: what arrived until now was sent for it, or for one before it. */
  expect(id: FileId): void;
  /**
   * Lets go of the connection's own copy, so that it does not keep a dead pod's namespace alive. A copy that arrived again since
   * the last `expect` or `receive` stays: it was sent for a call that is still on its way.
   */
  release(id: FileId): void;
  /**
   * How many may lie here from now on, `HELD_FDS_LIMIT` by default, and where they count besides. What lies here stays, as far as
   * the budget has room.
   */
  holdAtMost(count: number, budget?: FdBudget): void;
  /** How many received descriptors lie here. */
  readonly heldCount: number;
  /** How many were closed because the peer sent too many, could not be distinguished, or were lost for want of descriptors. */
  readonly droppedCount: number;
}

interface Held {
  readonly fd: Fd;
  claimed: boolean;
  /** It was sent once more, for a call that has not come yet. */
  again: boolean;
}
interface Waiter {
  resolve(fd: Fd): void;
  reject(reason: unknown): void;
}

/** Both queues of one stream: what waits to be sent, and what came and waits to be requested. */
export class FdExchange implements PassedFds {
  readonly #outgoing: Fd[] = [];
  readonly #held = new Map<string, Held>();
  readonly #waiters = new Map<string, Set<Waiter>>();
  #dropped = 0;
  #most = HELD_FDS_LIMIT;
  #budget = noBudget;
  #unnamed = 0;
  #closedBecause: Error | undefined;

  get heldCount(): number {
    return this.#held.size;
  }

  get droppedCount(): number {
    return this.#dropped;
  }

  /** The peer passes descriptors that neither a call nor we ourselves name: a connection that we accepted is to end. */
  get isFlooded(): boolean {
    return this.#unnamed > UNNAMED_FACTOR * this.#most;
  }

  send(fd: BorrowedFd): void {
    if (this.#closedBecause) throw this.#closedBecause;
    this.#outgoing.push(Fd.dupOf(fd));
  }

  async receive(id: FileId, signal: AbortSignal): Promise<Fd> {
    signal.throwIfAborted();
    if (this.#closedBecause) throw this.#closedBecause;
    const held = this.#held.get(fileKey(id));
    if (!held) return this.#wait(fileKey(id), signal);
    held.claimed = true;
    held.again = false;
    this.#unnamed = 0;
    return held.fd.dup();
  }

  expect(id: FileId): void {
    const held = this.#held.get(fileKey(id));
    if (!held) return;
    held.again = false;
    this.#unnamed = 0;
  }

  #wait(key: string, signal: AbortSignal): Promise<Fd> {
    return new Promise((resolve, reject) => {
      const waiters = this.#waiters.get(key) ?? new Set();
      this.#waiters.set(key, waiters);
      const leave = () => {
        signal.removeEventListener("abort", aborted);
        waiters.delete(waiter);
        if (waiters.size === 0) this.#waiters.delete(key);
      };
      const waiter: Waiter = {
        resolve(fd) {
          leave();
          resolve(fd);
        },
        reject(reason) {
          leave();
          reject(reason);
        },
      };
      const aborted = guarded("abort", () => waiter.reject(signal.reason));
      signal.addEventListener("abort", aborted, { once: true });
      waiters.add(waiter);
    });
  }

  release(id: FileId): void {
    const key = fileKey(id);
    const held = this.#held.get(key);
    if (!held) return;
    this.#unnamed = 0;
    if (held.again) held.again = false;
    else this.#letGo(key, held);
  }

  holdAtMost(count: number, budget = noBudget): void {
    this.#most = count;
    const former = this.#budget;
    this.#budget = budget;
    for (const [key, { fd }] of [...this.#held]) {
      former.give(1);
      if (budget.take(1)) continue;
      fd.close();
      this.#held.delete(key);
      this.#dropped += 1;
    }
  }

  /** The next descriptor to send, owned by the caller. */
  takeOutgoing(): Fd | undefined {
    return this.#outgoing.shift();
  }

  /** Puts one back that could not be sent yet. */
  putBack(fd: Fd): void {
    this.#outgoing.unshift(fd);
  }

  /** Takes over a descriptor that has arrived. Never throws: what a peer passes costs at most that descriptor. */
  arrived(fd: Fd): void {
    this.#unnamed += 1;
    let key: string;
    try {
      key = fileKey(fd.id());
    } catch (error) {
      // A folder of /proc whose process has died, a file system in a peer's own hands: no peer can ever name it.
      fd.close();
      this.lost(error);
      return;
    }
    const held = this.#held.get(key);
    if (held) held.again = true;
    if (this.#closedBecause || held) {
      fd.close();
      return;
    }
    const waiters = [...(this.#waiters.get(key) ?? [])];
    if (waiters.length > 0) this.#unnamed = 0;
    for (const waiter of waiters) {
      try {
        waiter.resolve(fd.dup());
      } catch (error) {
        waiter.reject(error); // EMFILE
      }
    }
    this.#keep(key, { fd, claimed: waiters.length > 0, again: false });
  }

  /** Where there is no room, one that lies here goes for it, or itself. */
  #keep(key: string, one: Held): void {
    const isFull = this.#held.size >= this.#most;
    if (isFull || !this.#budget.take(1)) {
      this.#dropped += 1;
      const hasRoom = this.#dropOne() && this.#budget.take(1);
      if (!hasRoom) {
        one.fd.close();
        return;
      }
    }
    this.#held.set(key, one);
  }

  /** The kernel threw descriptors away that had come. Which is not known: so none of those who wait now may wait in vain. */
  lost(because: unknown): void {
    this.#dropped += 1;
    this.#rejectWaiters(because);
  }

  // One that was received already is missed the least.
  #dropOne(): boolean {
    const held = [...this.#held];
    const victim = held.find(([, { claimed }]) => claimed) ?? held[0];
    if (victim) this.#letGo(...victim);
    return victim !== undefined;
  }

  #letGo(key: string, { fd }: Held): void {
    fd.close();
    this.#held.delete(key);
    this.#budget.give(1);
  }

  #rejectWaiters(because: unknown): void {
    for (const waiters of [...this.#waiters.values()]) for (const waiter of [...waiters]) waiter.reject(because);
  }

  /** The stream has ended: nothing comes or goes any more. */
  close(because: Error): void {
    if (this.#closedBecause) return;
    this.#closedBecause = because;
    for (const fd of this.#outgoing.splice(0)) fd.close();
    for (const one of [...this.#held]) this.#letGo(...one);
    this.#rejectWaiters(because);
  }
}
