/** One try may take this long: nsm-protocol §7.4. */
const LONGEST_TRY_MS = 15_000;
/** Before anything was granted: a sixth of the minute that NSM grants by default. */
const FIRST_TRY_MS = 10_000;
/** The registry behind the manager is on another node, and may write to the cluster's. */
const SHORTEST_TRY_MS = 500;
const TRY_PART = 1 / 6;
/** For what is left of a registration that seems to have expired already: the clock that says so differs from ours. */
const UNCLEAR_TRY_MS = 2_000;

/** A registration that expires sooner, or has expired by a clock that differs, is not renewed more often (W48). */
const SHORTEST_REFRESH_MS = 2_000;
/** A renewal that is planned for sooner than this would come too late as often as not. */
const LEAST_AHEAD_MS = 250;

/**
 * How long a call may take, and when a registration is renewed: by what the manager has granted, whichever token limited it. A
 * stock manager drops an entry earlier than it says, by as much as the call that made it might still have taken (the SDK's
 * `registry/common/expire`): 20 s that are granted to a call with 15 s for it are kept for 5 s.
 */
export class RenewalTimes {
  readonly #random: () => number;
  #tryMs: number;
  /** After how long the manager dropped us, where no renewal has come in time since. */
  #droppedMs: number | undefined;
  /** Renewals come sooner than this, whatever is granted: the manager has dropped us twice in a row. */
  #soonerMs = Number.POSITIVE_INFINITY;

  /**
   * @param tokenLifetimeMs of our own tokens: no more is granted
   * @param random a number in [0, 1)
   */
  constructor(tokenLifetimeMs: number, random: () => number) {
    this.#random = random;
    this.#tryMs = Math.min(FIRST_TRY_MS, tokenLifetimeMs * TRY_PART);
  }

  /** Limit of the next call, in ms. */
  get tryMs(): number {
    return this.#tryMs;
  }

  /**
   * A call with the limit of `tryMs` has registered us for so long, in ms by our clock, and took that long. Returns when to renew it: at
   * two thirds, up to a tenth earlier so that many forwarders do not renew in step; 0 where a shorter call must take its place at once.
   */
  granted(leftMs: number, tookMs: number): number {
    const usedMs = this.#tryMs;
    const partMs = leftMs > 0 ? Math.max(leftMs * TRY_PART, SHORTEST_TRY_MS) : UNCLEAR_TRY_MS;
    this.#tryMs = Math.min(Math.max(partMs, tookMs * 2), LONGEST_TRY_MS);
    if (leftMs <= 0) return SHORTEST_REFRESH_MS;
    const sooner = 1 - this.#random() / 10;
    const dueMs = Math.min((leftMs * 2) / 3, (leftMs - usedMs) * 0.8, this.#soonerMs) * sooner;
    if (dueMs >= LEAST_AHEAD_MS) return dueMs;
    return this.#tryMs < usedMs ? 0 : SHORTEST_REFRESH_MS;
  }

  /** The time for a renewal has come, and the manager still knew us. */
  kept(): void {
    this.#droppedMs = undefined;
  }

  /**
   * So long after a call has registered us the manager has dropped us. Once, someone may have asked it to; twice in a row, it goes by
   * another clock than ours.
   */
  dropped(afterMs: number): void {
    const before = this.#droppedMs;
    this.#droppedMs = afterMs;
    if (before === undefined) return;
    this.#soonerMs = Math.max((Math.max(before, afterMs) * 2) / 3, SHORTEST_REFRESH_MS);
  }

  /** The manager has gone: the next one may be another. */
  lost(): void {
    this.#droppedMs = undefined;
    this.#soonerMs = Number.POSITIVE_INFINITY;
  }

  /** The limit was too short for the manager. */
  timedOut(): void {
    this.#tryMs = Math.min(this.#tryMs * 2, LONGEST_TRY_MS);
  }
}
