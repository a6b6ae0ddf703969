import type { Log, LogFields, LogLevel, RootLog } from "./log.ts";

/** One event that a test may read. The fields are as they were given: nothing is hidden. */
interface RecordedEvent {
  readonly level: LogLevel;
  readonly event: string;
  readonly fields: LogFields;
}

/** A log for tests that keeps its lines. */
export interface RecordingLog extends RootLog {
  /** All events so far, also those of its children, in order. */
  readonly events: readonly RecordedEvent[];
  /** The fields of each event of this name, in order. */
  of(event: string): readonly LogFields[];
}

/** A log for tests that keeps all events, whatever their level; children write into the same list. */
export function recordingLog(): RecordingLog {
  const events: RecordedEvent[] = [];
  const logWith = (bound: LogFields): Log => {
    const keep = (level: LogLevel) => (event: string, fields?: LogFields) => {
      events.push({ level, event, fields: { ...bound, ...fields } });
    };
    return {
      error: keep("error"),
      warn: keep("warn"),
      info: keep("info"),
      debug: keep("debug"),
      trace: keep("trace"),
      with: (fields) => logWith({ ...bound, ...fields }),
    };
  };
  const of = (event: string) => events.filter((logged) => logged.event === event).map((logged) => logged.fields);
  return { ...logWith({}), level: "trace", events, of };
}
