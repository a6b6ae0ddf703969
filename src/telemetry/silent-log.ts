import type { RootLog } from "./log.ts";

/** A log that forgets everything: for what nobody reads. */
export const silentLog: RootLog = {
  level: "error",
  error() {},
  warn() {},
  info() {},
  debug() {},
  trace() {},
  with: () => silentLog,
};
