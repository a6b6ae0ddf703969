// What a guard of an event source has caught, as a metric and in the log.
import { type Clock, type EventSource, eventSources, onEscapedError } from "../async/index.ts";
import type { Log, Metrics } from "../telemetry/index.ts";

/** A peer that finds such a fault can bring it about as often as it likes: the log has one line of a source in this time. */
const PAUSE_MS = 60_000;

/** Counts and logs from now on. Returns how to stop. */
export function reportEscapedErrors(metrics: Metrics, clock: Clock, log: Log): () => void {
  const errors = metrics.counter({
    name: "nsm_sriov_callback_errors_total",
    help: "Errors that a callback of an event source threw: faults of the program, each at the cost of one connection or event",
    labels: { source: eventSources },
  });
  const lastLogged = new Map<EventSource, { readonly untilMs: number; more: number }>();
  return onEscapedError(({ source, error }) => {
    errors.add({ source });
    const last = lastLogged.get(source);
    if (last !== undefined && clock.monotonicMs() < last.untilMs) {
      last.more += 1;
      return;
    }
    lastLogged.set(source, { untilMs: clock.monotonicMs() + PAUSE_MS, more: 0 });
    log.error("callback-failed", { source, err: error, unloggedBefore: last?.more ?? 0 });
  });
}
