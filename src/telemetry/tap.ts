import type { Log, LogFields, LogLevel } from "./log.ts";

/** Hears of each event from `info` upwards, whatever the log shows. */
type LogListener = (level: LogLevel, event: string, fields: LogFields) => void;

/** The same log, with a listener: parts of the program learn of a change by the event that the operator reads. */
export function tapLog(log: Log, listener: LogListener, bound: LogFields = {}): Log {
  const both = (level: LogLevel) => (event: string, fields?: LogFields) => {
    log[level](event, fields);
    listener(level, event, { ...bound, ...fields });
  };
  return {
    error: both("error"),
    warn: both("warn"),
    info: both("info"),
    debug: (event, fields) => log.debug(event, fields),
    trace: (event, fields) => log.trace(event, fields),
    with: (fields) => tapLog(log.with(fields), listener, { ...bound, ...fields }),
  };
}
