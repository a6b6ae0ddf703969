import type { Clock, Timer } from "../async/index.ts";
import type { Health, Log } from "../telemetry/index.ts";
import type { Svid } from "./read-svid.ts";

/** Shares of its lifetime that an SVID has left when we warn. SPIRE rotates at one half. */
const WARN_AT = [0.25, 0.1, 0.03] as const;

/** Warns of an SVID that is not renewed: past its end no connection can be made. */
export class SvidExpiry {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #expiring;
  readonly #expired;
  #timer: Timer | undefined;

  constructor({ clock, log, health }: { readonly clock: Clock; readonly log: Log; readonly health: Health }) {
    this.#clock = clock;
    this.#log = log;
    this.#expiring = health.condition("svid-expiring");
    this.#expired = health.condition("svid-expired");
  }

  /** Watches this SVID in place of the one before. */
  watch(svid: Svid): void {
    this.stop();
    this.#expiring.clear();
    this.#expired.clear();
    const leftMs = svid.notAfterMs - this.#clock.now();
    if (leftMs > 0 && leftMs < (svid.notAfterMs - svid.notBeforeMs) * WARN_AT[0]) this.#reportExpiring(svid);
    this.#arm(svid, WARN_AT);
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #arm(svid: Svid, warnAt: readonly number[]): void {
    const lifetimeMs = svid.notAfterMs - svid.notBeforeMs;
    const leftMs = svid.notAfterMs - this.#clock.now();
    const [share = 0, ...later] = warnAt.filter((next) => next * lifetimeMs < leftMs);
    this.#timer = this.#clock.after(leftMs - share * lifetimeMs, () => {
      if (share === 0) return this.#reportExpired(svid);
      this.#reportExpiring(svid);
      this.#arm(svid, later);
    });
  }

  #reportExpiring(svid: Svid): void {
    const leftMs = svid.notAfterMs - this.#clock.now();
    this.#log.warn("svid-near-expiry", { spiffeId: svid.id, leftMs, hint: "the SPIRE agent has not renewed it" });
    this.#expiring.raise(
      `The SVID of ${svid.id} expires at ${new Date(svid.notAfterMs).toISOString()} and has not been renewed: ` +
        "look at the SPIRE agent and server",
    );
  }

  #reportExpired(svid: Svid): void {
    this.#log.error("svid-expired", { spiffeId: svid.id, hint: "no peer accepts us until the SPIRE agent renews it" });
    this.#expiring.clear();
    this.#expired.raise(`The SVID of ${svid.id} has expired: no peer accepts us. Look at the SPIRE agent and server`);
  }
}
