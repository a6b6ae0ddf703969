import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { until } from "../test/scenes/until.ts";
import { patience, readSchedstat, waitedMs } from "./patience.ts";

test("readSchedstat() reads what the kernel reports of a thread, and refuses anything else", () => {
  assert.deepEqual(readSchedstat("142784000 2850902 3\n"), { ranMs: 142.784, waitedMs: 2.850902 });
  for (const text of ["", "0", "a b c"]) assert.throws(() => readSchedstat(text), RangeError, text);
});

test("waitedMs() takes the busiest thread of a process, and nothing of one that has gone", () => {
  assert.ok(waitedMs(process.pid) >= 0);
  assert.equal(waitedMs(2 ** 22 + 1), 0);
});

test("waitedMs() grows while others have the processor", async (t) => {
  // Which processors we may have, as a list: "0-3,7".
  const [, cpu = "0"] = /^Cpus_allowed_list:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  const busy = () => spawn("taskset", ["-c", cpu, "sh", "-c", "while :; do :; done"]);
  const rivals = [busy(), busy()];
  t.after(() => {
    for (const rival of rivals) rival.kill("SIGKILL");
  });
  await until("each rival has waited", () => rivals.every(({ pid }) => waitedMs(pid ?? 0) >= 20));
});

test("patience() ends with a process that could have run all the time", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const idle = spawn("sleep", ["60"]);
  t.after(() => idle.kill("SIGKILL"));
  const { signal, stop } = patience(idle.pid ?? 0, -60_000);
  t.after(stop);
  assert.equal(signal.aborted, false);
  t.mock.timers.tick(5_000);
  assert.equal(signal.aborted, true);
});
