import type { Log } from "../../telemetry/index.ts";
import { NsmError, type QuotaExcess, type QuotaKind } from "../fault.ts";
import { type Held, quotaExcess } from "./quota.ts";

/** Judges every connection before it is kept. */
export class ConnectionQuota {
  readonly #connections: ReadonlyMap<string, Held>;
  readonly #log: Log;
  readonly #onRefused: (kind: QuotaKind) => void;
  /** Owners whose refusal is in the log already, as long as they have a connection. */
  readonly #logged = new Set<string>();

  constructor(connections: ReadonlyMap<string, Held>, log: Log, onRefused: (kind: QuotaKind) => void = () => {}) {
    this.#connections = connections;
    this.#log = log;
    this.#onRefused = onRefused;
  }

  /** @throws {NsmError} over-quota. */
  check(asked: Held): void {
    const excess = quotaExcess(this.#connections.values(), asked);
    const owner = asked.owner.spiffeId;
    if (!excess) {
      this.#logged.delete(owner);
      return;
    }
    this.#onRefused(excess.limitOf);
    this.#logOnce(owner, excess);
    throw new NsmError({ kind: "over-quota", id: asked.id, owner, ...excess });
  }

  #logOnce(owner: string, excess: QuotaExcess): void {
    if (this.#logged.has(owner)) return;
    const owners = new Set([...this.#connections.values()].map((record) => record.owner.spiffeId));
    for (const known of this.#logged) if (!owners.has(known)) this.#logged.delete(known);
    this.#logged.add(owner);
    this.#log.warn("quota-reached", { owner, ...excess });
  }
}
