// The end of a journal, and what was requested of it while its disk took nothing.
import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import { UnsyncedDisk } from "../../sandbox/machine/unsynced-disk.ts";
import { systemRandom } from "../async/index.ts";
import { type DiskFile, openStateFolder } from "../kernel/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { JournalError } from "./error.ts";
import { encodeFrame } from "./frame.ts";
import { openJournal } from "./journal.ts";

/** A disk that fails, or has synced a file when `answering` says so. */
class SlowDisk extends UnsyncedDisk {
  isBroken = false;
  answering = Promise.resolve();
  openFiles = 0;

  override onCall: UnsyncedDisk["onCall"] = () =>
    this.isBroken ? { bytes: 0, error: new Error("the disk is full") } : undefined;

  override async open(path: string, how: "read" | "append" | "create"): Promise<DiskFile> {
    const file = await super.open(path, how);
    this.openFiles += 1;
    return {
      ...file,
      datasync: async () => {
        await this.answering;
        await file.datasync();
      },
      close: async () => {
        this.openFiles -= 1;
      },
    };
  }
}

async function open() {
  const [disk, clock] = [new SlowDisk(), new HandClock()];
  const opened = async () => {
    const file = await (await openStateFolder("/state", { disk, random: systemRandom })).openAppend("journal");
    return await openJournal({ file, clock, onTrouble() {} });
  };
  const { journal } = await opened();
  const kept = async () => [...(await opened()).found.entries.keys()];
  return { disk, clock, journal, kept };
}

/** A file that a previous instance has left. */
async function leftFile(content: Buffer) {
  const disk = new SlowDisk();
  const open = async () =>
    await (await openStateFolder("/state", { disk, random: systemRandom })).openAppend("journal");
  const file = await open();
  await file.append(content);
  await file.close();
  return { disk, file: await open() };
}

test("openJournal() leaves the file closed, whether it could be read or not", async () => {
  const frame = encodeFrame(Buffer.from('["a",1]'));
  for (const version of [1, 2]) {
    frame.writeUInt8(version, 3);
    frame.writeUInt32LE(crc32(frame.subarray(12), crc32(frame.subarray(0, 8))), 8);
    const { disk, file } = await leftFile(frame);
    const before = disk.openFiles;
    const opening = openJournal({ file, clock: new HandClock(), onTrouble() {} });
    if (version === 1) await opening;
    else await assert.rejects(opening, JournalError);
    assert.equal(disk.openFiles, before, `version ${version}`);
  }
});

test("a sound record whose value is none counts as damage, and is gone with the first write", async () => {
  const { disk, file } = await leftFile(encodeFrame(Buffer.from('["a",nothing]')));
  const { journal, found } = await openJournal({ file, clock: new HandClock(), onTrouble() {} });
  assert.deepEqual([found.entries.size, found.damagedBytes > 0], [0, true]);
  assert.match(String(disk.files["/state/journal"]), /nothing/);
  await journal.put("b", 1);
  assert.doesNotMatch(String(disk.files["/state/journal"]), /nothing/);
  await journal.close();
});

test("Journal.close() waits for the change that is being written, closes the file, and leaves no timer", async () => {
  const { disk, clock, journal, kept } = await open();
  disk.isBroken = true;
  await assert.rejects(journal.put("a", 1), JournalError);
  assert.equal(clock.timerCount, 1);
  disk.isBroken = false;
  await journal.put("b", 2);
  const answer = Promise.withResolvers<void>();
  disk.answering = answer.promise;
  const written = journal.put("c", 3);
  let isClosed = false;
  const closing = journal.close().then(() => {
    isClosed = true;
  });
  await settled();
  assert.deepEqual([isClosed, disk.openFiles], [false, 1]);
  answer.resolve();
  await Promise.all([written, closing]);
  assert.deepEqual([disk.openFiles, clock.timerCount, await kept()], [0, 0, ["a", "b", "c"]]);
});

test("Journal.drop() of a key whose first drop has failed resolves when it is gone from the disk", async () => {
  const { disk, journal, kept } = await open();
  await journal.put("a", 1);
  disk.isBroken = true;
  await assert.rejects(journal.drop("a"), JournalError);
  await assert.rejects(journal.drop("a"), JournalError);
  disk.isBroken = false;
  await journal.drop("a");
  assert.deepEqual(await kept(), []);
  await journal.close();
});

test("Journal tries again what the disk did not take, once for all that has failed meanwhile", async () => {
  const { disk, clock, journal, kept } = await open();
  disk.isBroken = true;
  for (const key of ["a", "b", "c"]) await assert.rejects(journal.put(key, 1), JournalError);
  assert.equal(clock.timerCount, 1);
  await clock.pass(5_000);
  assert.equal(clock.timerCount, 1, "and again");
  disk.isBroken = false;
  await clock.pass(5_000);
  assert.deepEqual([clock.timerCount, await kept()], [0, ["a", "b", "c"]]);
  await journal.close();
});
