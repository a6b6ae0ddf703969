import assert from "node:assert/strict";
import { mkdtemp, rename, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock as clock } from "../async/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import { RpcError } from "../rpc/index.ts";
import type { PciAddress } from "../sriov/index.ts";
import { Health, recordingLog } from "../telemetry/index.ts";
import { type KeptVf, openNodeJournal } from "./connection-journal.ts";

const entry: JournalEntry = {
  connectionId: "c1",
  owner: { spiffeId: "spiffe://d/manager", isManager: true },
  stage: "ready",
  mechanism: "KERNEL",
  tokenId: "sriov-1",
  connection: Buffer.from([0, 255, 10]),
  expiresMs: 1_700_000_000_000,
};
const vf = { address: "0000:01:10.0", connectionId: "c1", tokenId: "sriov-1", netns: "4/40", state: { name: "nsm-1" } };

async function folderOf(t: TestContext): Promise<string> {
  const parent = await mkdtemp(join(tmpdir(), "journal-"));
  t.after(() => rm(parent, { recursive: true, force: true }));
  return join(parent, "state");
}

async function open(statePath: string) {
  const [health, log] = [new Health(clock), recordingLog()];
  return { journal: await openNodeJournal({ statePath, health, clock, log }), health, log };
}

test("openNodeJournal() finds what was kept, byte by byte, and tells of damage once", async (t) => {
  const folder = await folderOf(t);
  const before = (await open(folder)).journal;
  await Promise.all([before.put(entry), before.put({ ...entry, connectionId: "c2" })]);
  await before.keepVf(vf as unknown as KeptVf);
  await before.drop("c2");
  await before.close();
  const { journal, log } = await open(folder);
  assert.deepEqual([journal.connections, [...journal.vfs.values()]], [[entry], [vf]]);
  await truncate(join(folder, "journal"), 10_000).catch(() => {}); // grows: zeros, as after a power cut
  journal.forgetVf(vf.address as PciAddress);
  assert.deepEqual([journal.vfs.size, [...journal.forgotten.values()]], [0, [vf]]);
  await journal.close();
  assert.deepEqual(log.events, []);
  const next = await open(folder);
  assert.deepEqual([next.journal.connections, [...next.journal.vfs.values()]], [[entry], []]);
  assert.deepEqual(
    next.log.events.map(({ event }) => event),
    ["journal-damaged"],
  );
});

test("openNodeJournal() refuses what cannot be kept, and says so until the disk is well", async (t) => {
  const folder = await folderOf(t);
  const { journal, health } = await open(folder);
  await rename(folder, `${folder}-away`);
  await assert.rejects(journal.put(entry), (error) => error instanceof RpcError && error.code === "UNAVAILABLE");
  const told = health.ailments().map(({ code, severity }) => `${code} ${severity}`);
  assert.deepEqual(told, ["journal-not-written blocking"]);
  await rename(`${folder}-away`, folder);
  await journal.put(entry);
  assert.deepEqual(health.ailments(), []);
  await journal.close();
  assert.deepEqual((await open(folder)).journal.connections, [entry]);
});
