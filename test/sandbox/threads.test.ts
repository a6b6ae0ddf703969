// The forwarder goes into pods' network namespaces all the time, with its main thread alone and only for the length of a call.
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { test } from "node:test";
import { systemClock as clock } from "../../src/async/index.ts";
import { needs } from "../needs.ts";
import { KillScene } from "./scenes/kill-scene.ts";

const ROUNDS = 6;
const PAUSE_MS = 1;
/** Threads that Node has beside those of libuv's pool, of which there are 4 at least. */
const FEW_THREADS = 6;

/** The network namespace of each thread of a process; one that has just ended is left out. */
function threadsOf(pid: number): ReadonlyMap<string, string> {
  const seen = new Map<string, string>();
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    try {
      seen.set(task, readlinkSync(`/proc/${pid}/task/${task}/ns/net`));
    } catch {
      // it has ended since it was listed
    }
  }
  return seen;
}

test("all threads of a forwarder stay in the namespace where it was started, while seven clients come and go", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const scene = await KillScene.open({ vfsPerPf: 4 });
  t.after(async () => {
    const pings = await scene.stop();
    assert.deepEqual(pings, pings && { ...pings, lost: 0 });
  });
  const { pid = assert.fail("it has no process") } = scene.forwarder;
  const home = readlinkSync("/proc/self/ns/net");
  const clients = scene.pods.map((pod) => scene.direct(pod));
  let isOver = false;
  const working = (async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      await Promise.all(clients.map((client) => client.request()));
      await Promise.all(clients.map((client) => client.close()));
    }
  })().finally(() => {
    isOver = true;
  });
  let observations = 0;
  while (!isOver) {
    for (const [task, netns] of threadsOf(pid)) {
      // The main thread is elsewhere for the length of a call.
      if (task !== String(pid)) assert.equal(netns, home, `thread ${task}`);
    }
    observations += 1;
    await clock.sleep(PAUSE_MS); // it looks much more often than a call takes, and leaves the processors to the calls
  }
  await working;
  await scene.forwarder.inventory(); // what it does for its calls is done
  const threads = threadsOf(pid);
  assert.deepEqual(new Set(threads.values()), new Set([home]));
  assert.ok(threads.size > FEW_THREADS && observations > ROUNDS, `${threads.size} threads, ${observations} looks`);
  for (const client of clients) await client.hangUp();
});
