import { type Clock, guarded } from "../async/index.ts";
import type { HeldRequests, Undecoded } from "./held-requests.ts";
import type { Rate } from "./rate.ts";

/** Elements that are decoded before the event loop continues with other things; the last message may go beyond. */
const TURN_ELEMENTS = 8192;
/** Until owners that have used up their rate are tried again. */
const PAUSE_MS = 10;

/** A request that may be decoded. */
export interface Admitted {
  readonly heldBytes: number;
  /** Its call has ended; a second time does nothing. */
  release(): void;
}

interface Waiting {
  readonly request: Undecoded;
  readonly go: (admitted: Admitted) => void;
}

interface DecodeQueueOptions {
  /** In elements. */
  readonly rate: Rate;
  readonly held: HeldRequests;
  readonly clock: Pick<Clock, "after">;
}

/**
 * Requests wait here, as bytes, until they may be decoded: so many elements in a turn of the event loop, of each owner so many in a
 * second, and no more than it may hold until its calls end; one owner after the other, whatever each has sent. Decoded they take a
 * hundred times their bytes.
 */
export class DecodeQueue {
  readonly #rate: Rate;
  readonly #held: HeldRequests;
  readonly #clock: Pick<Clock, "after">;
  /** In the order of their turns. */
  readonly #owners = new Map<string, Set<Waiting>>();
  /** Counted on over turns in which nothing waits, so that these need no timer: one request in many waits for a turn in vain. */
  #leftInTurn = TURN_ELEMENTS;
  #isTurnSet = false;
  #isRateSpent = false;

  constructor({ rate, held, clock }: DecodeQueueOptions) {
    this.#rate = rate;
    this.#held = held;
    this.#clock = clock;
  }

  /** How many wait. */
  get size(): number {
    return [...this.#owners.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /** Resolves when the owner's request may be decoded. @throws the signal's reason. */
  async admit(owner: string, request: Undecoded, signal: AbortSignal): Promise<Admitted> {
    signal.throwIfAborted();
    const admitted = this.#owners.size === 0 ? this.#take(owner, request) : "later";
    if (typeof admitted !== "string") return admitted;
    const { promise, resolve, reject } = Promise.withResolvers<Admitted>();
    const waiting: Waiting = { request, go: resolve };
    const gone = guarded("abort", () => {
      this.#remove(owner, waiting);
      reject(signal.reason);
    });
    this.#owners.set(owner, (this.#owners.get(owner) ?? new Set()).add(waiting));
    signal.addEventListener("abort", gone, { once: true });
    this.#setTurn(0);
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", gone);
    }
  }

  /** "full": a smaller one of the owner may have room. */
  #take(owner: string, request: Undecoded): Admitted | "later" | "full" {
    if (this.#leftInTurn <= 0) return "later";
    const heldBytes = this.#held.take(owner, request);
    if (heldBytes === undefined) return "full";
    if (!this.#rate.take(owner, request.elements)) {
      this.#held.give(owner, heldBytes);
      this.#isRateSpent = true;
      return "later";
    }
    this.#leftInTurn -= request.elements;
    let release = () => {
      release = () => {};
      this.#held.give(owner, heldBytes);
      if (this.#owners.size > 0) this.#setTurn(0);
    };
    return { heldBytes, release: () => release() };
  }

  #setTurn(delayMs: number): void {
    if (this.#isTurnSet) return;
    this.#isTurnSet = true;
    const turn = guarded("timer", () => this.#turn());
    this.#clock.after(delayMs, turn);
  }

  /** What waits for calls to end needs no other turn than theirs. */
  #turn(): void {
    this.#isTurnSet = false;
    this.#leftInTurn = TURN_ELEMENTS;
    let isAnyTaken = true;
    while (isAnyTaken && this.#leftInTurn > 0) {
      isAnyTaken = false;
      this.#isRateSpent = false;
      for (const owner of [...this.#owners.keys()]) isAnyTaken = this.#takeNextOf(owner) || isAnyTaken;
    }
    if (this.#owners.size === 0) return;
    if (this.#leftInTurn <= 0) this.#setTurn(0);
    else if (this.#isRateSpent) this.#setTurn(PAUSE_MS);
  }

  /** Who was served goes behind the others; who was not keeps its place. */
  #takeNextOf(owner: string): boolean {
    const own = this.#owners.get(owner) ?? new Set();
    for (const next of own) {
      const admitted = this.#take(owner, next.request);
      if (admitted === "full") continue;
      if (admitted === "later") return false;
      this.#owners.delete(owner);
      own.delete(next);
      if (own.size > 0) this.#owners.set(owner, own);
      next.go(admitted);
      return true;
    }
    return false;
  }

  #remove(owner: string, waiting: Waiting): void {
    const own = this.#owners.get(owner);
    own?.delete(waiting);
    if (own?.size === 0) this.#owners.delete(owner);
  }
}
