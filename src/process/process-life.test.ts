import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import test from "node:test";
import { countedClock } from "../../test/counted-clock.ts";
import { within } from "../../test/scenes/until.ts";
import { type Clock, systemClock } from "../async/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { type LifeOptions, live, type Running } from "./process-life.ts";

/** A process whose end is recorded; like the real one it does nothing after its first exit. */
class PretendProcess extends EventEmitter {
  code: number | undefined;
  exit(code: number): void {
    this.code ??= code;
    this.emit("ended");
  }
}

function alive(start: LifeOptions["start"], clock: Clock = systemClock) {
  const process = new PretendProcess();
  const log = recordingLog();
  log.level = "warn";
  const ended = once(process, "ended");
  void live({ start, log, configuredLevel: "warn", clock, process, stopLimitMs: 1000 });
  return { process, log, ended, events: () => log.events.map((reported) => reported.event) };
}

function runs(stop: () => Promise<void> = () => Promise.resolve()): LifeOptions["start"] {
  return async (): Promise<Running> => ({ stop });
}

/** Every time is up at once. */
const hurried: Clock = { ...systemClock, after: (_delayMs, callback) => systemClock.after(0, callback) };

const settled = () => new Promise((resolve) => setImmediate(resolve));

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]) {
  test(`live() stops the work at ${signal} and ends with 0`, async () => {
    let stops = 0;
    const { process, ended, events } = alive(runs(async () => void stops++));
    await settled();
    process.emit(signal);
    await within("the process ends", ended);
    assert.deepEqual([process.code, stops, events()], [0, 1, ["stopping", "stopped"]]);
  });
}

for (const [says, start] of [
  ["has run", runs()],
  [
    "was given up at its start",
    (signal: AbortSignal) =>
      new Promise<Running>((_, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason), { once: true }),
      ),
  ],
] as const) {
  test(`live() leaves no timer of a process that ${says}`, async () => {
    const clock = countedClock();
    const { process, ended } = alive(start, clock);
    await settled();
    process.emit("SIGTERM");
    await within("the process ends", ended);
    await settled();
    assert.deepEqual([process.code, clock.timerCount], [0, 0]);
  });
}

test("live() ends at once at the second signal", async () => {
  const { process, ended, events } = alive(runs(() => new Promise(() => {})));
  await settled();
  process.emit("SIGTERM");
  process.emit("SIGINT");
  await within("the process ends", ended);
  assert.deepEqual([process.code, events()], [130, ["stopping", "stopped-at-once"]]);
});

test("live() ends with 1 when the start fails", async () => {
  const { process, ended, events } = alive(() => Promise.reject(new Error("no config file")));
  await within("the process ends", ended);
  assert.deepEqual([process.code, events()], [1, ["start-failed"]]);
});

test("live() ends with 0 when a start is given up because of a signal", async () => {
  const start = (signal: AbortSignal) =>
    new Promise<Running>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const { process, ended, events } = alive(start);
  process.emit("SIGTERM");
  await within("the process ends", ended);
  assert.deepEqual([process.code, events()], [0, ["stopping"]]);
});

test("live() stops what has started although a signal came first", async () => {
  let stops = 0;
  const { process, ended } = alive(async () => {
    await settled();
    return { stop: async () => void stops++ };
  });
  process.emit("SIGTERM");
  await within("the process ends", ended);
  assert.deepEqual([process.code, stops], [0, 1]);
});

test("live() ends with 1 when a start is to stop and does not, and names the part that it waited for", async () => {
  const start: LifeOptions["start"] = async (_signal, started) => {
    started.push("gRPC server", () => new Promise(() => {}));
    await started.unwind(() => {});
    throw new Error("stopped");
  };
  const { process, log, ended, events } = alive(start, hurried);
  process.emit("SIGTERM");
  await within("the process ends", ended);
  assert.deepEqual([process.code, events()], [1, ["stopping", "stop-failed"]]);
  assert.equal(log.of("stop-failed")[0]?.["waitsFor"], "gRPC server");
});

test("live() ends with 1 when the stop takes too long or fails, and names the part that it waited for", async () => {
  for (const stop of [() => new Promise<void>(() => {}), () => Promise.reject(new Error("busy"))]) {
    const { process, log, ended, events } = alive(async () => ({ stop, stopping: "gRPC server" }), hurried);
    await settled();
    process.emit("SIGTERM");
    await within("the process ends", ended);
    assert.deepEqual([process.code, events()], [1, ["stopping", "stop-failed"]]);
    assert.equal(log.of("stop-failed")[0]?.["waitsFor"], "gRPC server");
  }
});

for (const [event, says] of [
  ["beforeExit", "event-loop-empty"],
  ["exit", "ended-unexpectedly"],
] as const) {
  test(`live() says so and ends with 70 at an end without a signal (${event}), in each stage`, async () => {
    const starting = alive((signal) => new Promise((_, reject) => signal.addEventListener("abort", reject)));
    const running = alive(runs());
    const stopping = alive(runs(() => new Promise(() => {})));
    await settled();
    stopping.process.emit("SIGTERM");
    await settled();
    for (const [{ process, log }, stage] of [
      [starting, "starting"],
      [running, "running"],
      [stopping, "stopping"],
    ] as const) {
      process.emit(event, 13);
      assert.equal(process.code, 70);
      assert.equal(log.of(says)[0]?.["stage"], stage);
    }
    for (const { process } of [starting, running]) process.emit("SIGTERM");
  });
}

test("live() changes the log level at SIGUSR1 and back at SIGUSR2", async () => {
  const { process, log } = alive(runs());
  process.emit("SIGUSR1");
  assert.equal(log.level, "trace");
  process.emit("SIGUSR2");
  assert.equal(log.level, "warn");
  assert.deepEqual(log.of("log-level-changed"), [{ to: "trace" }, { to: "warn" }]);
  process.emit("SIGTERM");
});

test("live() ends with 70 at an uncaught exception, and serves on after a rejection", async () => {
  const { process, events } = alive(runs());
  await settled();
  process.emit("unhandledRejection", new Error("one call"));
  assert.equal(process.code, undefined);
  process.emit("uncaughtException", new Error("bug"), "uncaughtException");
  assert.deepEqual([process.code, events()], [70, ["unhandled-rejection", "uncaught-exception"]]);
  process.emit("SIGTERM");
});

test("live() lets the process end by itself: nothing of it keeps the event loop", async () => {
  const timers = () => globalThis.process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
  const before = timers();
  const { process, ended } = alive(runs());
  await settled();
  assert.equal(timers() > before, true, "while it runs something does");
  process.emit("SIGTERM");
  await within("the process ends", ended);
  await settled();
  assert.equal(timers(), before);
});
