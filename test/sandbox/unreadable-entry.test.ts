// An entry of the journal that no version of ours wrote: it keeps its place, and no other connection is affected.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { test } from "node:test";
import { SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { openJournal } from "../../src/journal/index.ts";
import { openStateFolder } from "../../src/kernel/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";

const KEY = "connection unreadable";
const ENTRY = {
  connectionId: "unreadable",
  owner: { spiffeId: "spiffe://test/nsmgr", isManager: true },
  stage: "ready",
  mechanism: "NOOP",
  connection: Buffer.from("no connection at all").toString("base64"),
};

async function openOf({ folder }: Sandbox) {
  const state = await openStateFolder(`${folder}/state`);
  return await openJournal({ file: await state.openAppend("journal"), clock, onTrouble: assert.ifError });
}

test("a forwarder starts beside an entry that it cannot take up, says so, and leaves it to a later one", async (t) => {
  const log = recordingLog();
  const sandbox = await Sandbox.start({ machine: { vfsPerPf: 2 }, log, peerLog: silentLog, clock });
  t.after(() => sandbox.stop());
  mkdirSync(`${sandbox.folder}/state`, { recursive: true });
  const { journal } = await openOf(sandbox);
  await journal.put(KEY, ENTRY);
  await journal.close();
  const forwarder = await sandbox.startForwarder();
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length === 4);
  const [reported, ...others] = log.of("connection-not-adopted");
  assert.deepEqual([reported?.["connection"], reported?.["stage"], others], ["unreadable", "ready", []]);
  assert.equal(forwarder.nsm.connectionCount, 0);
  await sandbox.stopForwarder();
  const { journal: after, found } = await openOf(sandbox);
  await after.close();
  assert.deepEqual(found.entries.get(KEY), ENTRY);
});
