import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { lockFolder, tryLockFolder } from "./exclusive-lock.ts";

function folderOf(t: TestContext): string {
  const parent = mkdtempSync(join(tmpdir(), "lock-"));
  t.after(() => rmSync(parent, { recursive: true }));
  return join(parent, "state");
}

/** Requests the lock; says how often a holder was met. */
function asking(folder: string, signal = new AbortController().signal) {
  let met = 0;
  const meets = Promise.withResolvers<void>();
  const onHeld = () => {
    met += 1;
    meets.resolve();
  };
  return { lock: lockFolder(folder, { signal, onHeld }), meets: meets.promise, met: () => met };
}

test("lockFolder() makes the folder, holds it against each other asker, and hands it on to one at a time", async (t) => {
  const folder = folderOf(t);
  const first = await asking(folder).lock;
  assert.equal(first.isCurrent(), true);
  const others = [asking(folder), asking(folder)] as const;
  await Promise.all(others.map(({ meets }) => meets));
  first.release();
  first.release();
  const second = await Promise.race(others.map(async ({ lock }, at) => ({ at, lock: await lock })));
  const last = others[1 - second.at];
  assert.deepEqual([others[second.at]?.met(), first.isCurrent()], [1, false]);
  second.lock.release();
  (await last?.lock)?.release();
});

test("lockFolder() can be given up, and has then nothing of the folder", async (t) => {
  const folder = folderOf(t);
  const first = await asking(folder).lock;
  const stop = new AbortController();
  const second = asking(folder, stop.signal);
  await second.meets;
  stop.abort(new Error("asked to stop"));
  await assert.rejects(second.lock, /asked to stop/);
  first.release();
  (await asking(folder).lock).release();
});

test("lockFolder() takes no file that is not its own for the lock", async (t) => {
  const folder = folderOf(t);
  mkdirSync(folder);
  writeFileSync(join(folder, "lock"), "");
  await assert.rejects(asking(folder).lock, /lock is in the way and no FIFO; remove it/);
});

test("tryLockFolder() changes nothing, refuses what is locked, and knows another folder of the same name", (t) => {
  const folder = folderOf(t);
  assert.throws(() => tryLockFolder(folder), { code: "ENOENT" });
  mkdirSync(folder);
  const first = tryLockFolder(folder);
  assert.equal(tryLockFolder(folder), undefined);
  assert.equal(first?.isCurrent(), true);
  rmdirSync(folder);
  mkdirSync(`${folder}-other`); // an inode number may be given out again
  mkdirSync(folder);
  assert.equal(first?.isCurrent(), false);
  const second = tryLockFolder(folder);
  assert.equal(second?.isCurrent(), true);
  for (const lock of [first, second]) lock?.release();
});
