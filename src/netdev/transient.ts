// Answers that a driver gives while it resets a VF or waits for its PF: the same call is right a moment later.
import type { Clock } from "../async/index.ts";
import { KernelError } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { NetdevError } from "./error.ts";

/**
 * Who answers so (Linux 6.12): iavf to "up" in every state but DOWN (iavf_open), to an MTU whose reset takes too long
 * (iavf_change_mtu) and to an address that the PF has not confirmed (iavf_set_mac); ice to settings and queries of a VF in
 * reset (ice_check_vf_ready_for_cfg); i40e likewise, and while another setting is under way (i40e_ndo_set_vf_*); otx2 while
 * the PF is down (otx2_set_vf_mac); the kernel itself to a route over a link that is down (fib_check_nh).
 */
const TRANSIENT: readonly string[] = ["EBUSY", "EAGAIN", "ENETDOWN"];

const FIRST_WAIT_MS = 5;
const LONGEST_WAIT_MS = 500;

/** A driver that says "not now". */
export function isTransient(error: unknown): error is KernelError {
  return error instanceof KernelError && TRANSIENT.includes(error.code);
}

/** Waits for news: until something is heard that may concern the link, or so many ms have passed. */
export type NextSign = (waitMs: number, signal: AbortSignal | undefined) => Promise<void>;

export interface PatienceOptions {
  /** For the error. */
  readonly link: string;
  readonly clock: Clock;
  readonly log: Log;
  /** For all steps together. */
  readonly limitMs: number;
  /** The deadline of the caller; it may come before the limit. */
  readonly signal?: AbortSignal | undefined;
  readonly nextSign: NextSign;
}

/** How long one piece of work waits for a driver, step by step. */
export class Patience {
  readonly #options: PatienceOptions;
  readonly #endsAtMs: number;

  constructor(options: PatienceOptions) {
    this.#options = options;
    this.#endsAtMs = options.clock.monotonicMs() + options.limitMs;
  }

  /**
   * Does the step, again and again while its answer is transient: at each sign of the kernel, and after waits that grow.
   * @throws {NetdevError} of kind "busy", which names the step, the answer and how often it came, when the time is up.
   */
  run<T>(step: string, act: () => Promise<T>): Promise<T> {
    return this.until(step, async () => {
      try {
        return { done: await act() };
      } catch (error) {
        if (isTransient(error)) return error.detail === undefined ? error.code : `${error.code} (${error.detail})`;
        throw error;
      }
    });
  }

  /** The same for a step that says itself what it waits for. */
  async until<T>(step: string, act: () => Promise<{ readonly done: T } | string>): Promise<T> {
    const { clock, log, link, signal, nextSign } = this.#options;
    const startedMs = clock.monotonicMs();
    let waitMs = FIRST_WAIT_MS;
    for (let tries = 1; ; tries++) {
      const outcome = await act();
      if (typeof outcome !== "string") {
        const tookMs = Math.round(clock.monotonicMs() - startedMs);
        if (tries > 1) log.debug("driver-was-busy", { link, step, tries, tookMs });
        return outcome.done;
      }
      const leftMs = this.#endsAtMs - clock.monotonicMs();
      if (leftMs > 0 && !signal?.aborted) {
        // Aborted while it waits: reported below, with what it waited for.
        await nextSign(Math.min(waitMs, leftMs), signal).catch(() => {});
        waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS);
      }
      if (leftMs <= 0 || signal?.aborted) {
        const afterMs = Math.round(clock.monotonicMs() - startedMs);
        throw new NetdevError({ kind: "busy", link, step, answer: outcome, tries, afterMs }, { cause: signal?.reason });
      }
    }
  }
}
