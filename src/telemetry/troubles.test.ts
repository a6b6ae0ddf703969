import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../async/index.ts";
import type { LogFields, LogLevel } from "./log.ts";
import { recordingLog } from "./recording-log.ts";
import { tapLog } from "./tap.ts";
import { Troubles } from "./troubles.ts";

test("Troubles keeps the latest twenty warnings and errors, the latest first, short and without secrets", () => {
  let nowMs = 0;
  const troubles = new Troubles({ ...systemClock, now: () => nowMs++ });
  for (const level of ["info", "debug", "trace"] as const) troubles.hear(level, "nothing", {});
  for (let at = 0; at < 25; at += 1) troubles.hear(at % 2 === 0 ? "error" : "warn", `event-${at}`, { at });
  const before = troubles.list;
  assert.deepEqual(
    before.map(({ event }) => event),
    Array.from({ length: 20 }, (_, at) => `event-${24 - at}`),
  );
  assert.deepEqual(before[0], { atMs: 24, level: "error", event: "event-24", text: "at=24" });
  troubles.hear("warn", "last", { token: "sriov-0123", error: "x".repeat(2_000) });
  const [last] = troubles.list;
  assert.match(last?.text ?? "", /^token=<hidden> error=x+…$|^token="<hidden>" error=x+…$/);
  assert.equal(last?.text.length, 601);
  assert.equal(before[0]?.event, "event-24", "what was read stays as it was");
});

test("tapLog() reports to its listener what is logged from info upwards, with the fields of all its children", () => {
  const log = recordingLog();
  const heard: (readonly [LogLevel, string, LogFields])[] = [];
  const tapped = tapLog(log, (...reported) => heard.push(reported));
  const child = tapped.with({ connection: "c1" }).with({ vf: "v1" });
  child.warn("one", { error: "e" });
  child.debug("two");
  child.trace("three");
  tapped.info("four");
  tapped.error("five", { connection: "own" });
  assert.deepEqual(heard, [
    ["warn", "one", { connection: "c1", vf: "v1", error: "e" }],
    ["info", "four", {}],
    ["error", "five", { connection: "own" }],
  ]);
  const logged = log.events.map(({ level, event, fields }) => [level, event, fields]);
  assert.deepEqual(logged, [
    ["warn", "one", { connection: "c1", vf: "v1", error: "e" }],
    ["debug", "two", { connection: "c1", vf: "v1" }],
    ["trace", "three", { connection: "c1", vf: "v1" }],
    ["info", "four", {}],
    ["error", "five", { connection: "own" }],
  ]);
});
