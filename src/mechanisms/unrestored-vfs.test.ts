import assert from "node:assert/strict";
import { test } from "node:test";
import { paperUnrestored } from "../../test/scenes/paper-unrestored.ts";
import { kernelEntry } from "../../test/scenes/paper-vfs.ts";
import { parsePciAddress } from "../pci/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { StoredEntry } from "./journal-entries.ts";
import { UnrestoredVfs } from "./unrestored-vfs.ts";

const address = parsePciAddress("01:10.0");

/** On a disk that takes its time. */
function slowDisk() {
  const written = Promise.withResolvers<void>();
  const journal = { put: () => written.promise, drop: () => written.promise };
  const log = recordingLog();
  return { vfs: new UnrestoredVfs(journal, new Map(), { log }), written, log };
}

for (const outcome of ["is on disk", "could not be written"] as const) {
  test(`UnrestoredVfs.keep() of what it has waits until that ${outcome}, and never fails for it`, async () => {
    const { vfs, written } = slowDisk();
    const first = vfs.keep(address, {});
    let isOver = false;
    const again = vfs.keep(address, {}).then(() => {
      isOver = true;
    });
    await new Promise(setImmediate);
    assert.equal(isOver, false);
    if (outcome === "is on disk") written.resolve();
    else written.reject(new Error("the disk is full"));
    await Promise.all([again, outcome === "is on disk" ? first : assert.rejects(first, /the disk is full/)]);
  });
}

test("UnrestoredVfs.forget() reports what stays on disk", async () => {
  const { vfs, written, log } = slowDisk();
  vfs.keep(address, {}).catch(() => {});
  vfs.forget(address);
  vfs.forget(address);
  written.reject(new Error("the disk is full"));
  await new Promise(setImmediate);
  assert.deepEqual(log.of("vf-not-forgotten"), [{ vf: address, error: "the disk is full" }]);
});

test("UnrestoredVfs.keep() writes what is new, and keeps what is not said", async () => {
  const disk = new Map<string, StoredEntry>();
  const vfs = paperUnrestored(disk);
  const { connectionId, state } = kernelEntry(address);
  const before = { connectionId, state };
  const written = () => [...disk.values()];
  await vfs.keep(address, { before });
  await vfs.keep(address, { isNewNeeded: true });
  assert.deepEqual(written(), [{ address, before, isNewNeeded: true }]);
  await vfs.keep(address, { boot: "boot 1" });
  assert.deepEqual(written(), [{ address, before, isNewNeeded: true, boot: "boot 1" }]);
  await vfs.keep(address, { before });
  assert.equal(paperUnrestored(disk).isNewNeeded(address), true);
  await vfs.keep(address, { isNewNeeded: false });
  assert.deepEqual(written(), [{ address, before, isNewNeeded: false, boot: "boot 1" }]);
  disk.clear();
  await vfs.keep(address, { before, isNewNeeded: false, boot: "boot 1" });
  assert.deepEqual(written(), [], "it is known");
});

test("UnrestoredVfs.bootOf() is that of the settings where an earlier version has written no other", async () => {
  const vfs = paperUnrestored();
  const { connectionId, state } = kernelEntry(address);
  const kept = { boot: "boot 1", settings: {} };
  await vfs.keep(address, { before: { connectionId, state: { ...state, kept } } });
  assert.equal(vfs.bootOf(address), "boot 1");
  await vfs.keep(address, { boot: "boot 2" });
  assert.equal(vfs.bootOf(address), "boot 2");
});

test("UnrestoredVfs.isNewNeeded() holds of a VF of which nothing else is known, and of none that the journal does not have", async () => {
  const vfs = paperUnrestored();
  assert.equal(vfs.isNewNeeded(address), false);
  await vfs.keep(address, {});
  assert.equal(vfs.isNewNeeded(address), true);
});

test("UnrestoredVfs.keep() has what VFIO is to know of the VF, and of a whole entry what the host had set", async () => {
  const disk = new Map<string, StoredEntry>();
  const vfs = paperUnrestored(disk);
  const entry = kernelEntry(address);
  await vfs.keep(address, { before: entry });
  await vfs.keep(address, { chosenMac: "02:00:00:00:00:44", boot: undefined });
  const { connectionId, state } = entry;
  const kept = { address, before: { connectionId, state }, chosenMac: "02:00:00:00:00:44" };
  assert.deepEqual([...disk.values()], [kept]);
  await vfs.keep(address, { before: { state } });
  assert.deepEqual([...disk.values()], [kept], "it is known");
  assert.equal(paperUnrestored(disk).chosenMacOf(address), "02:00:00:00:00:44");
});
