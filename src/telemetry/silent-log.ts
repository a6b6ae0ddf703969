import type { RootLog } from "./log.ts";

/** A log that forgets everything: for tests and tools without a reader. */
export const silentLog: RootLog = {
  level: "error",
  error() {},
  warn() {},
  info() {},
  debug() {},
  trace() {},
  with: () => silentLog,
};
