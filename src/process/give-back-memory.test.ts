import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { trimMemory } from "../kernel/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { giveBackMemory } from "./give-back-memory.ts";

const MIB = 1024 * 1024;

test("giveBackMemory() trims after work, again and again, and not where there was none", async () => {
  const clock = new HandClock();
  const cpu = { ms: 500 };
  let trims = 0;
  const trim = () => {
    trims += 1;
    cpu.ms += 15; // its own work is no reason for another one
  };
  giveBackMemory({ clock, cpuMs: () => cpu.ms, trim });
  const seen: number[] = [];
  for (const workMs of [0, 19, 1, 0, 19, 500]) {
    cpu.ms += workMs;
    await clock.pass(200);
    seen.push(trims);
  }
  assert.deepEqual(seen, [0, 0, 1, 1, 1, 2]);
});

test("trimMemory() gives back what was freed between what is kept", () => {
  // Below the size that malloc maps by itself; every hundredth stays, so that no end of the heap is free.
  let blocks = Array.from({ length: 4_000 }, () => new Uint8Array(16 * 1024).fill(1));
  const kept = blocks.filter((_, at) => at % 100 === 0);
  blocks = [];
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  for (let at = 0; at < 3; at += 1) collect();
  const before = process.memoryUsage.rss();
  trimMemory();
  const given = before - process.memoryUsage.rss();
  assert.ok(given > 20 * MIB, `${Math.round(given / MIB)} MiB given back`);
  assert.equal(kept.length, 40);
});
