import type { Clock } from "../../async/index.ts";
import type { PeerLogs } from "../../telemetry/index.ts";
import { NsmError, type QuotaExcess, type QuotaKind } from "../fault.ts";
import { accountableName } from "./connection-owner.ts";
import { type Held, QUOTA, type Quota, quotaExcess } from "./quota.ts";

interface ConnectionQuotaOptions {
  readonly logs: Pick<PeerLogs, "of">;
  readonly clock: Pick<Clock, "monotonicMs">;
  readonly quota?: Quota | undefined;
  readonly onRefused?: ((kind: QuotaKind) => void) | undefined;
}

/** An owner's refusals are in the log once in this time, whatever is admitted in between: it can bring that about itself. */
const PAUSE_MS = 60_000;
/** Owners that are remembered for that; of a crowd the log is bounded by `PeerLogs`. */
const REMEMBERED = 256;

/** Judges every connection before it is kept. */
export class ConnectionQuota {
  readonly #connections: ReadonlyMap<string, Held>;
  readonly #options: ConnectionQuotaOptions;
  /** When the refusals of an owner may be in the log again; the oldest first. */
  readonly #againAtMs = new Map<string, number>();

  constructor(connections: ReadonlyMap<string, Held>, options: ConnectionQuotaOptions) {
    this.#connections = connections;
    this.#options = options;
  }

  /** @throws {NsmError} over-quota. */
  check(requested: Held): void {
    const { quota = QUOTA, onRefused } = this.#options;
    const excess = quotaExcess(this.#connections.values(), requested, quota);
    if (!excess) return;
    const owner = accountableName(requested.owner);
    onRefused?.(excess.limitOf);
    this.#logRarely(owner, excess);
    throw new NsmError({ kind: "over-quota", owner, ...excess });
  }

  #logRarely(owner: string, excess: QuotaExcess): void {
    const nowMs = this.#options.clock.monotonicMs();
    if ((this.#againAtMs.get(owner) ?? nowMs) > nowMs) return;
    for (const [known, againAtMs] of this.#againAtMs) {
      if (againAtMs > nowMs && this.#againAtMs.size < REMEMBERED) break;
      this.#againAtMs.delete(known);
    }
    this.#againAtMs.set(owner, nowMs + PAUSE_MS);
    this.#options.logs.of(owner).warn("quota-reached", { owner, ...excess });
  }
}
