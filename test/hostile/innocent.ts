import assert from "node:assert/strict";
import type { Client } from "../../sandbox/nsm/client.ts";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";

/** NSM_REQUEST_TIMEOUT of NSM's client. */
const CALL_TIMEOUT_MS = 15_000;
/** NSM's client tries without end, after a pause like this. A pod that must try longer than that is not served. */
const PATIENCE_MS = 60_000;
const PAUSE_MS = 200;

/** A call that was answered. */
export interface Call {
  readonly what: "Request" | "refresh" | "Close";
  /** On the clock of `performance.now()`. */
  readonly startedAtMs: number;
  /** Until it was answered: its tries and pauses together. */
  readonly tookMs: number;
}

/** What became of an innocent's calls. */
export interface Served {
  readonly calls: Call[];
  /** Tries that failed, with why. */
  readonly retries: string[];
}

/** A pod that wants its interface, refreshes it once and gives it back, again and again, whatever others do. */
export class Innocent {
  readonly name: string;
  readonly #pod: SandboxPod;
  readonly #clientOf: () => Client;
  readonly #lasting: Client | undefined;
  #isAlive = () => true;
  /** Rounds that were served. */
  rounds = 0;

  /** @param clientOf its client for one round; the pod's own is kept, any other hangs up after it */
  constructor(name: string, pod: SandboxPod, clientOf: () => Client) {
    this.name = name;
    this.#pod = pod;
    this.#clientOf = clientOf;
    this.#lasting = pod.client;
  }

  /**
   * Rounds until the signal, at least one that begins before it. @throws when a call is not served: at once when nothing is alive that
   * could.
   */
  async live(signal: AbortSignal, isAlive = () => true): Promise<Served> {
    const served: Served = { calls: [], retries: [] };
    this.#isAlive = isAlive;
    do {
      await this.#round(served);
      this.rounds += 1;
    } while (!signal.aborted);
    return served;
  }

  async #round(served: Served): Promise<void> {
    const client = this.#clientOf();
    try {
      await this.#call(served, "Request", () => client.request({ timeoutMs: CALL_TIMEOUT_MS }));
      assert.equal((await this.#pod.pod.link("nsm-1"))?.up, true, `${this.name} has its interface`);
      await this.#call(served, "refresh", () => client.request({ timeoutMs: CALL_TIMEOUT_MS }));
      await this.#call(served, "Close", () => client.close({ timeoutMs: CALL_TIMEOUT_MS }));
    } finally {
      if (client !== this.#lasting) await client.hangUp();
    }
  }

  async #call(served: Served, what: Call["what"], call: () => Promise<unknown>): Promise<void> {
    const startedAtMs = performance.now();
    for (let tried = 1; ; tried += 1) {
      try {
        await call();
        served.calls.push({ what, startedAtMs, tookMs: performance.now() - startedAtMs });
        return;
      } catch (error) {
        const tookMs = Math.round(performance.now() - startedAtMs);
        const why = `${what} of ${this.name}, try ${tried}, after ${tookMs} ms: ${String(error)}`;
        served.retries.push(why);
        if (tookMs > PATIENCE_MS || !this.#isAlive()) throw new Error(why, { cause: error });
        await clock.sleep(PAUSE_MS);
      }
    }
  }
}
