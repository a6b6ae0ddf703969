// An operator removes the state folder while the forwarder runs: nothing that was answered is forgotten.
import assert from "node:assert/strict";
import { existsSync, rmSync } from "node:fs";
import { test } from "node:test";
import { SANDBOX_RESOURCE, Sandbox, type SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { lockFolder } from "../../src/kernel/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";
import { eventually } from "./scenes/story.ts";

const PODS = 24;

test("a forwarder whose state folder is removed has every connection and every token after its restart", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const log = recordingLog();
  const machine = { realLinks: true, vfsPerPf: PODS / 2 };
  const sandbox = await Sandbox.start({ machine, log, peerLog: silentLog, clock });
  try {
    await outlivesItsFolder(sandbox);
  } finally {
    await sandbox.stop();
  }
  const reported = log.events.filter(({ event }) => event === "journal-not-written");
  assert.equal(reported.length, 3);
});

async function outlivesItsFolder(sandbox: Sandbox): Promise<void> {
  const devices = () => sandbox.kubelet.until(SANDBOX_RESOURCE, ({ length }) => length === PODS);
  await sandbox.startForwarder();
  const offered = new Set((await devices()).map(({ id }) => id));
  const pods: SandboxPod[] = [];
  while (pods.length < PODS) pods.push(await sandbox.startPod(`pod-${pods.length}`));
  const state = `${sandbox.folder}/state`;
  for (const [index, { client }] of pods.entries()) {
    if (index === 4) rmSync(state, { recursive: true });
    if (index === 12) rmSync(`${state}/journal`);
    await client.request();
  }
  await sandbox.stopForwarder();
  const forwarder = await sandbox.startForwarder();
  assert.equal(forwarder.nsm.connectionCount, PODS);
  assert.deepEqual(new Set((await devices()).map(({ id }) => id)), offered);
  assert.deepEqual(forwarder.health.conditions(), []);
  for (const { client } of pods) await client.request();
  // Nothing is written meanwhile.
  rmSync(state, { recursive: true });
  await eventually(
    () => existsSync(`${state}/journal`) && existsSync(`${state}/token-namespace`),
    (isThere) => isThere,
  );
  // No other user may have what is there now.
  await eventually(
    () => existsSync(`${state}/lock`),
    (isThere) => isThere,
  );
  const locking = new AbortController();
  const isHeld = await new Promise<boolean>((resolve, reject) => {
    const onHeld = () => resolve(true);
    lockFolder(state, { signal: locking.signal, onHeld }).then(
      (lock) => {
        lock.release();
        resolve(false);
      },
      (error: unknown) => locking.signal.aborted || reject(error),
    );
  });
  locking.abort(new Error("enough"));
  assert.equal(isHeld, true);
  for (const { client } of pods) await client.close();
}
