// What is refused to peers because they have their share: as a metric, and once in the log.
import type { Clock } from "../async/index.ts";
import { REFUSAL_KINDS, type RefusalKind } from "../nsm/index.ts";
import { LIMIT_KINDS, type LimitKind } from "../rpc/index.ts";
import type { Log, Metrics } from "../telemetry/index.ts";

/** A peer is reported again after so long without a refusal of that kind. */
const QUIET_MS = 600_000;
/** Peers and kinds that are remembered: beyond that there is no line more. */
const REMEMBERED = 256;

/** Counts and reports what was refused; without a peer it is in the log already. */
export function declareRefusals(metrics: Metrics, clock: Clock, log: Log): Refusals {
  const refusals = metrics.counter({
    name: "nsm_sriov_refused_total",
    help: "What was refused to peers because they have as much of this node, or of this process, as they may have",
    labels: { kind: [...LIMIT_KINDS, ...REFUSAL_KINDS] },
  });
  const lastMs = new Map<string, number>();
  return (kind, peer) => {
    refusals.add({ kind });
    if (peer === undefined) return;
    const nowMs = clock.monotonicMs();
    const key = JSON.stringify([kind, peer]);
    const isKnown = lastMs.has(key);
    if (!isKnown) for (const [old, atMs] of lastMs) if (nowMs - atMs >= QUIET_MS) lastMs.delete(old);
    const isDue = nowMs - (lastMs.get(key) ?? Number.NEGATIVE_INFINITY) >= QUIET_MS;
    if (!isKnown && lastMs.size >= REMEMBERED) return;
    lastMs.set(key, nowMs);
    if (isDue) log.warn("peer-limited", { peer: peer || "without identity", kind });
  };
}

/** Something was refused. */
export type Refusals = (kind: LimitKind | RefusalKind, peer?: string) => void;
