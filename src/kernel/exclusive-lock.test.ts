import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { lockFolder, tryLockFolder } from "./exclusive-lock.ts";
import { Fd } from "./fd.ts";

function folderOf(t: TestContext): string {
  const parent = mkdtempSync(join(tmpdir(), "lock-"));
  t.after(() => rmSync(parent, { recursive: true }));
  return join(parent, "state");
}

/** The descriptors that are opened from now on and open still. */
function openedFds(t: TestContext): ReadonlySet<number> {
  const open = new Set<number>();
  Fd.trace = (what, fd) => void (what === "own" ? open.add(fd) : open.delete(fd));
  t.after(() => {
    Fd.trace = undefined;
  });
  return open;
}

/** Requests the lock; says how often a holder was met. */
function locking(folder: string, signal = new AbortController().signal) {
  let met = 0;
  const meets = Promise.withResolvers<void>();
  const onHeld = () => {
    met += 1;
    meets.resolve();
  };
  return { lock: lockFolder(folder, { signal, onHeld }), meets: meets.promise, met: () => met };
}

test("lockFolder() makes the folder, holds it against each other asker, and hands it on to one at a time", async (t) => {
  const open = openedFds(t);
  const folder = folderOf(t);
  const stop = new AbortController();
  t.after(() => stop.abort());
  const first = await locking(folder).lock;
  assert.equal(first.isCurrent(), true);
  const others = [locking(folder, stop.signal), locking(folder, stop.signal)] as const;
  for (const { lock } of others) lock.catch(() => {});
  await Promise.all(others.map(({ meets }) => meets));
  assert.equal(open.size, 3, "who waits has no end of the FIFO that keeps others waiting");
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
  const first = await locking(folder).lock;
  const stop = new AbortController();
  const second = locking(folder, stop.signal);
  await second.meets;
  stop.abort(new Error("asked to stop"));
  await assert.rejects(second.lock, /asked to stop/);
  first.release();
  (await locking(folder).lock).release();
});

test("lockFolder() has one descriptor when it holds the lock, one while it waits, and none where it was given up before", async (t) => {
  const open = openedFds(t);
  const folder = folderOf(t);
  const first = await locking(folder).lock;
  assert.equal(open.size, 1);
  const stop = new AbortController();
  const second = locking(folder, stop.signal);
  await second.meets;
  const waiting = open.size;
  stop.abort(new Error("asked to stop"));
  await assert.rejects(second.lock, /asked to stop/);
  first.release();
  assert.deepEqual([waiting, open.size], [2, 0]);
  await assert.rejects(locking(folder, stop.signal).lock, /asked to stop/);
  assert.equal(open.size, 0);
});

test("lockFolder() takes no file that is not its own for the lock", async (t) => {
  const folder = folderOf(t);
  mkdirSync(folder);
  writeFileSync(join(folder, "lock"), "");
  await assert.rejects(locking(folder).lock, /lock is in the way and no FIFO; remove it/);
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
