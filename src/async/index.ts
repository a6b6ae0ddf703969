// Time and order: the clock, retry delays, one-at-a-time queues, take-backs, values that change, the guard of callbacks and what they
// throw, randomness.
// Imports nothing and knows no subject of the forwarder. Start reading at keyed-queue.ts, through
// which the life of every connection runs, and undo.ts, through which the process starts and stops.
export { type Backoff, backoffMs, createBackoff } from "./backoff.ts";
export { type Clock, systemClock, type Timer } from "./clock.ts";
export { DeadlineError, startDeadline } from "./deadline.ts";
export { messageOf, printable } from "./error-message.ts";
export {
  type EscapedError,
  type EventSource,
  eventSources,
  guarded,
  guardProbe,
  onEscapedError,
} from "./event-guard.ts";
export { keepAlive } from "./keep-alive.ts";
export { KeyedQueue } from "./keyed-queue.ts";
export { Latest } from "./latest.ts";
export { LimitedQueue } from "./limited-queue.ts";
export { type Random, systemRandom } from "./random.ts";
export { both } from "./run-both.ts";
export { UndoStack } from "./undo.ts";
