// The last net under what the outside makes us do: a callback of a socket, a watcher or an abort that throws would end the
// process (docs/decisions/029-one-guard-at-every-event-source.md). No code counts on it: an error that comes here is a fault of ours.

/** Everything that calls us from outside our own work, as the metric and the log name it. */
export const eventSources = [
  "abort",
  "admin-http",
  "admin-socket",
  "file-watch",
  "http2-session",
  "http2-stream",
  "kernel-socket",
  "kernel-write",
  "poll",
  "tcp",
  "timer",
  "tls",
  "unix-listener",
  "unix-stream",
] as const;

/** One kind of event source. */
export type EventSource = (typeof eventSources)[number];

/** An error that a callback threw and that cost nothing but what it belonged to. */
export interface EscapedError {
  readonly source: EventSource;
  readonly error: Error;
}

const listeners = new Set<(escaped: EscapedError) => void>();

/** For tests: called before each guarded callback, inside its guard. */
export const guardProbe: { before: ((source: EventSource) => void) | undefined } = { before: undefined };

/** Calls back for each error that a guard has caught. Returns how to stop. */
export function onEscapedError(listener: (escaped: EscapedError) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/**
 * The callback, so that what it throws is reported and costs only what `onError` closes: the connection, the call. Where
 * there is no listener for such errors (a command, a unit test) it is thrown as an uncaught one, out of the event that brought it.
 */
export function guarded<A extends readonly unknown[]>(
  source: EventSource,
  callback: (...args: A) => void,
  onError: (error: Error, ...args: A) => void = () => {},
): (...args: A) => void {
  return (...args) => {
    try {
      guardProbe.before?.(source);
      callback(...args);
    } catch (cause) {
      const error = cause instanceof Error ? cause : new Error(String(cause));
      report(source, error);
      try {
        onError(error, ...args);
      } catch (second) {
        report(source, second as Error);
      }
    }
  };
}

function report(source: EventSource, error: Error): void {
  if (listeners.size === 0) {
    queueMicrotask(() => {
      throw error;
    });
  }
  for (const listener of [...listeners]) listener({ source, error });
}
