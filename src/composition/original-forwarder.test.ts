import assert from "node:assert/strict";
import { test } from "node:test";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { Health } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { awaitOriginal } from "./original-forwarder.ts";

function node(...listeners: readonly string[]) {
  const clock = new HandClock();
  const [log, health, stop] = [recordingLog(), new Health(clock), new AbortController()];
  const world = { listeners, isOver: false };
  const host = { unixListeners: () => world.listeners };
  const waiting = awaitOriginal({ host, health, clock, log, signal: stop.signal }).then(() => (world.isOver = true));
  const codes = () => health.conditions().map(({ code }) => code);
  return { clock, log, world, stop, waiting, codes };
}

const ORIGINAL = "/tmp/sriov-forwarder1234567/listen_on.io.sock";

test("awaitOriginal() waits until the last original has ended, says so once, and then no more", async () => {
  const { clock, log, world, waiting, codes } = node("/run/other.sock", ORIGINAL);
  await clock.pass(10_000);
  assert.deepEqual([world.isOver, codes()], [false, ["original-running"]]);
  world.listeners = [ORIGINAL.replace("1234567", "7")];
  await clock.pass(1_000);
  assert.equal(world.isOver, false, "another one has taken its place");
  world.listeners = [];
  await clock.pass(1_000);
  await waiting;
  assert.deepEqual([codes(), clock.timerCount], [[], 0]);
  assert.deepEqual([log.of("original-running").length, log.of("original-gone").length], [1, 1]);
});

test("awaitOriginal() is given up with its signal", async () => {
  const { clock, stop, waiting } = node(ORIGINAL);
  await clock.pass(500);
  stop.abort(new Error("stopped"));
  await assert.rejects(waiting, /stopped/);
  assert.equal(clock.timerCount, 0);
});

for (const path of [
  "/tmp/sriov-forwarder/listen_on.io.sock",
  "/tmp/sriov-forwarder12x/listen_on.io.sock",
  "/tmp/sriov-forwarder12/listen_on.io.sock.old",
  "@/tmp/my-sriov-forwarder12/listen_on.io.sock",
]) {
  test(`awaitOriginal() does not take ${path} for the original's`, async () => {
    const { log, world } = node(path);
    await settled();
    assert.deepEqual([world.isOver, log.events], [true, []]);
  });
}
