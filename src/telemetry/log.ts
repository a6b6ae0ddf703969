/** Facts that go with an event. Never a token, a key or an SVID body: shorten or leave out. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Levels from the rarest to the most talkative. */
export type LogLevel = "error" | "warn" | "info" | "debug" | "trace";

/**
 * Where events are reported. The event is a kebab-case name ("driver-bound"), everything else is a field.
 * `error`: the operator must act. `warn`: we recover, but the operator should find out why. `info`: a state changed.
 * `debug`: each call.
 */
export interface Log {
  error(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  debug(event: string, fields?: LogFields): void;
  trace(event: string, fields?: LogFields): void;
  /** A log whose every event carries these fields too. */
  with(fields: LogFields): Log;
}

/** A log whose level can be changed while the process runs; children follow it. */
export interface RootLog extends Log {
  level: LogLevel;
}

/** All levels, from the rarest to the most talkative. */
const logLevels: readonly LogLevel[] = ["error", "warn", "info", "debug", "trace"];

/** Whether an event of the level is logged at the threshold. */
export function isLogged(level: LogLevel, threshold: LogLevel): boolean {
  return logLevels.indexOf(level) <= logLevels.indexOf(threshold);
}
