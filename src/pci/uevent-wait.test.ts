import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import type { Uevent } from "../kernel/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { isAbout, waitForUevent } from "./uevent-wait.ts";

const LIMIT_MS = 1_000;
const event = (action: Uevent["action"], subsystem = "net"): Uevent => ({ action, subsystem, devpath: "", fields: {} });

/** What is waited for; the first read takes as long as `slow`. */
function setUp(slow: Promise<void> = Promise.resolve()) {
  const clock = new HandClock();
  const listeners = new Set<(event: Uevent) => void>();
  const caller = new AbortController();
  const seen = { observations: 0, thing: undefined as string | undefined };
  const uevents = {
    subscribe(listener: (event: Uevent) => void) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close() {},
  };
  const observe = async () => {
    seen.observations += 1;
    if (seen.observations > 10) throw new Error("it looks without an event");
    const { thing } = seen;
    await slow;
    return thing;
  };
  const { signal } = caller;
  const wanted = {
    what: "a thing",
    observe,
    concerns: ({ subsystem }: Uevent) => subsystem === "net",
    limitMs: LIMIT_MS,
    signal,
  };
  const found = waitForUevent(wanted, { uevents, clock });
  const say = async (one: Uevent) => {
    for (const listener of listeners) listener(one);
    await settled();
  };
  const left = () => [listeners.size, clock.timerCount, getEventListeners(signal, "abort").length];
  return { clock, caller, seen, found, say, left };
}

test("waitForUevent() reads once for each event that concerns it or was lost, and leaves nothing behind", async () => {
  const { seen, found, say, left } = setUp();
  await settled();
  assert.equal(seen.observations, 1);
  for (const [one, observations] of [
    [event("add", "pci"), 1],
    [event("add"), 2],
    [event("lost", ""), 3],
  ] as const) {
    await say(one);
    assert.equal(seen.observations, observations);
  }
  seen.thing = "here";
  await say(event("add"));
  assert.equal(await found, "here");
  assert.deepEqual(left(), [0, 0, 0]);
});

test("waitForUevent() reads again for an event that comes while it reads", async () => {
  const slow = Promise.withResolvers<void>();
  const { seen, found, say } = setUp(slow.promise);
  await say(event("add")); // the read before this one has found nothing, and has not answered
  seen.thing = "here";
  slow.resolve();
  assert.equal(await found, "here");
});

test("waitForUevent() reads a last time when time has passed during a read", async () => {
  const slow = Promise.withResolvers<void>();
  const { clock, seen, found, left } = setUp(slow.promise);
  await clock.pass(LIMIT_MS);
  seen.thing = "here";
  slow.resolve();
  assert.equal(await found, "here");
  assert.deepEqual(left(), [0, 0, 0]);
});

test("waitForUevent() lets its caller go at once, and leaves nothing behind", async () => {
  const { caller, seen, found, left } = setUp();
  await settled();
  caller.abort(new Error("caller has gone"));
  await assert.rejects(found, /caller has gone/);
  assert.deepEqual([seen.observations, left()], [1, [0, 0, 0]]);
});

test("isAbout() takes whole names of the path: neither another VF nor a name that contains it", () => {
  const about = (devpath: string) => isAbout({ ...event("add"), devpath }, "0000:01:10.0");
  assert.ok(about("/devices/pci0000:00/0000:01:10.0/net/eth0"));
  assert.ok(!about("/devices/pci0000:00/0000:01:10.01") && !about("/devices/pci0000:00/0000:01:10.2/net/eth0"));
});
