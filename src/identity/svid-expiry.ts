import type { Clock, Timer } from "../async/index.ts";
import type { Health, Log } from "../telemetry/index.ts";
import type { Svid } from "./read-svid.ts";

/** Shares of its lifetime that an SVID has left when we warn. SPIRE rotates at one half. */
const WARN_AT = [0.25, 0.1, 0.03] as const;
/** Timers do not follow a clock that is set; its end is a time of that clock. */
const CHECK_MS = 60_000;

/** Warns of an SVID that is not renewed: past its end no connection can be made. */
export class SvidExpiry {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #expiring;
  readonly #expired;
  #timer: Timer | undefined;
  /** What is said of it now. */
  #reported: { readonly svid: Svid; readonly isExpired: boolean } | undefined;
  #problem: string | undefined;

  constructor({ clock, log, health }: { readonly clock: Clock; readonly log: Log; readonly health: Health }) {
    this.#clock = clock;
    this.#log = log;
    this.#expiring = health.condition("svid-expiring");
    this.#expired = health.condition("svid-expired");
  }

  /** Watches this SVID in place of the one before. */
  watch(svid: Svid): void {
    this.stop();
    this.#reported = undefined;
    this.#expiring.clear();
    this.#expired.clear();
    const leftMs = svid.notAfterMs - this.#clock.now();
    if (leftMs <= 0) {
      this.#reportExpired(svid);
      return;
    }
    if (leftMs < (svid.notAfterMs - svid.notBeforeMs) * WARN_AT[0]) this.#reportExpiring(svid);
    this.#arm(svid);
  }

  /** Why it is not renewed, where that is known. */
  explain(problem: string | undefined): void {
    this.#problem = problem;
    this.#raise();
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #arm(svid: Svid): void {
    const lifetimeMs = svid.notAfterMs - svid.notBeforeMs;
    const leftMs = svid.notAfterMs - this.#clock.now();
    const share = WARN_AT.find((next) => next * lifetimeMs < leftMs) ?? 0;
    const isDue = () => svid.notAfterMs - this.#clock.now() <= share * lifetimeMs;
    this.#timer = this.#clock.after(Math.min(leftMs - share * lifetimeMs, CHECK_MS), () => {
      if (!isDue()) return this.#arm(svid);
      if (share === 0) return this.#reportExpired(svid);
      this.#reportExpiring(svid);
      this.#arm(svid);
    });
  }

  #reportExpiring(svid: Svid): void {
    const leftMs = svid.notAfterMs - this.#clock.now();
    const problem = this.#problem ?? "the SPIRE agent has not renewed it";
    this.#log.warn("svid-near-expiry", { spiffeId: svid.id, leftMs, problem });
    this.#reported = { svid, isExpired: false };
    this.#raise();
  }

  #reportExpired(svid: Svid): void {
    const problem = this.#problem ?? "the SPIRE agent has not renewed it";
    this.#log.error("svid-expired", { spiffeId: svid.id, problem, hint: "no peer accepts us until it is renewed" });
    this.#expiring.clear();
    this.#reported = { svid, isExpired: true };
    this.#raise();
    this.#awaitEarlierClock(svid);
  }

  #raise(): void {
    if (!this.#reported) return;
    const { svid, isExpired } = this.#reported;
    const whatToDo = this.#problem ?? "look at the SPIRE agent and server";
    const end = new Date(svid.notAfterMs).toISOString();
    if (isExpired) this.#expired.raise(`The SVID of ${svid.id} has expired, so no peer accepts us: ${whatToDo}`);
    else this.#expiring.raise(`The SVID of ${svid.id} expires at ${end} and has not been renewed: ${whatToDo}`);
  }

  /** A clock that was set too far ahead, and is set back. */
  #awaitEarlierClock(svid: Svid): void {
    this.#timer = this.#clock.after(CHECK_MS, () => {
      if (svid.notAfterMs > this.#clock.now()) this.watch(svid);
      else this.#awaitEarlierClock(svid);
    });
  }
}
