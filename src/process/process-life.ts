// From start to exit code: signals, log level, and what happens when an error is not caught.
import { constants } from "node:os";
import { type Clock, DeadlineError, keepAlive, startDeadline, type Timer, UndoStack } from "../async/index.ts";
import type { LogLevel, RootLog } from "../telemetry/index.ts";

/** Something that runs until it is stopped. */
export interface Running {
  stop(): Promise<void>;
  /** The part that a stop waits for now. */
  readonly stopping?: string | undefined;
}

/** The few things of Node's `process` that are used here, so that tests need no second process. */
interface ProcessEvents {
  on(event: string, listener: (...args: unknown[]) => void): unknown;
  exit(code: number): unknown;
}

export interface LifeOptions {
  /**
   * Starts the work. The signal is aborted when a stop is requested meanwhile; `started` is for what such a start has to stop, so that
   * the log can say which part of it does not.
   */
  readonly start: (signal: AbortSignal, started: UndoStack) => Promise<Running>;
  readonly log: RootLog;
  /** The level that SIGUSR2 goes back to. */
  readonly configuredLevel: LogLevel;
  readonly clock: Clock;
  readonly process: ProcessEvents;
  /** How long a stop may take, in ms, also that of a start that is under way; then the process ends all the same. */
  readonly stopLimitMs: number;
}

/** EX_SOFTWARE of sysexits.h: an uncaught error, or an end without a signal. */
const FAULT_EXIT_CODE = 70;

/** What the process is about; named in its last line. */
type Stage = "starting" | "running" | "stopping";

const STOP_SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const;

/**
 * Starts, waits for a stop signal, stops. Ends the process with 0 when a stop was requested, 1 when the start
 * failed or the stop took too long, before the start was done or after. Until then it stays alive whatever it waits for; an
 * end that comes all the same (an empty event loop, a call of `process.exit`) is logged and has code 70.
 *
 * An uncaught exception ends the process at once: what is in force is then unknown, and a start that reads the node
 * back is made for that, without harm to running connections. An unhandled rejection belongs to one call, whose
 * undo has run or will be made up for by the reconciler: it is logged as an error, and other calls are served as before.
 * docs/decisions/004-uncaught-errors.md has the reasons.
 */
export async function live(options: LifeOptions): Promise<void> {
  const { log, process } = options;
  const stopping = new AbortController();
  const started = new UndoStack();
  const release = keepAlive();
  let stage: Stage = "starting";
  guard(options, () => stage);
  changeLevelOnSignals(options);
  for (const name of STOP_SIGNALS) process.on(name, () => stopRequested(name, stopping, options));
  try {
    const running = await startOrGiveUp(options, stopping.signal, started);
    stage = "running";
    await aborted(stopping.signal);
    stage = "stopping";
    process.exit(await stop(running, options));
  } catch (err) {
    const isGivenUp = stopping.signal.aborted && !(err instanceof DeadlineError);
    const waitsFor = started.current;
    if (!isGivenUp) log.error(stopping.signal.aborted ? "stop-failed" : "start-failed", { err, waitsFor });
    process.exit(isGivenUp ? 0 : 1);
  } finally {
    release();
  }
}

/** A start that waits where no signal reaches it, in a write to a device for example, must not hold up the stop. */
async function startOrGiveUp(
  { start, clock, stopLimitMs }: LifeOptions,
  stopping: AbortSignal,
  started: UndoStack,
): Promise<Running> {
  const limit = Promise.withResolvers<never>();
  let timer: Timer | undefined;
  const arm = () => {
    const late = new DeadlineError(`Giving up the start took longer than ${stopLimitMs} ms`);
    timer = clock.after(stopLimitMs, () => limit.reject(late));
  };
  stopping.addEventListener("abort", arm, { once: true });
  try {
    return await Promise.race([start(stopping, started), limit.promise]);
  } finally {
    timer?.cancel();
    stopping.removeEventListener("abort", arm);
  }
}

function stopRequested(
  name: (typeof STOP_SIGNALS)[number],
  stopping: AbortController,
  { log, process }: LifeOptions,
): void {
  if (stopping.signal.aborted) {
    log.warn("stopped-at-once", { signal: name });
    process.exit(128 + constants.signals[name]);
    return;
  }
  log.info("stopping", { signal: name });
  stopping.abort(new Error(`Stopped by ${name}`));
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** The exit code. */
async function stop(running: Running, { clock, log, stopLimitMs }: LifeOptions): Promise<number> {
  const limit = startDeadline(clock, stopLimitMs, { what: "Stopping" });
  const late = aborted(limit.signal).then(() => Promise.reject(limit.signal.reason));
  try {
    await Promise.race([running.stop(), late]);
    log.info("stopped");
    return 0;
  } catch (err) {
    log.error("stop-failed", { err, waitsFor: running.stopping });
    return 1;
  } finally {
    limit.end();
  }
}

function guard({ log, process }: LifeOptions, stageNow: () => Stage): void {
  // `process.exit` of this file runs no "exit" listener: a process that gets here has had no signal.
  process.on("beforeExit", () => {
    log.error("event-loop-empty", { stage: stageNow(), exitCode: FAULT_EXIT_CODE });
    process.exit(FAULT_EXIT_CODE);
  });
  process.on("exit", (code: unknown) => {
    log.error("ended-unexpectedly", { stage: stageNow(), byCode: code, exitCode: FAULT_EXIT_CODE });
    process.exit(FAULT_EXIT_CODE);
  });
  process.on("uncaughtException", (err: unknown, origin: unknown) => {
    log.error("uncaught-exception", { err, origin });
    process.exit(FAULT_EXIT_CODE);
  });
  process.on("unhandledRejection", (err: unknown) => log.error("unhandled-rejection", { err }));
}

function changeLevelOnSignals({ log, process, configuredLevel }: LifeOptions): void {
  const change = (level: LogLevel) => {
    log.level = level;
    log.info("log-level-changed", { to: level });
  };
  process.on("SIGUSR1", () => change("trace"));
  process.on("SIGUSR2", () => change(configuredLevel));
}
