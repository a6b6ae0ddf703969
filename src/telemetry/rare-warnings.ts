import type { Clock } from "../async/index.ts";
import type { Log, LogFields } from "./log.ts";

const PAUSE_MS = 10_000;

/**
 * Warns once in ten seconds, and at debug in between: an operator must see it, and a peer that brings it about as often as it likes
 * must not fill the log.
 */
export function rareWarnings(log: Log, clock: Pick<Clock, "monotonicMs">): (event: string, fields: LogFields) => void {
  let againAtMs = Number.NEGATIVE_INFINITY;
  return (event, fields) => {
    const nowMs = clock.monotonicMs();
    if (nowMs < againAtMs) return log.debug(event, fields);
    againAtMs = nowMs + PAUSE_MS;
    log.warn(event, fields);
  };
}
