// The end of a journal, and what was requested of it while its disk took nothing.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { AppendFile } from "../kernel/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { JournalError } from "./error.ts";
import { openJournal } from "./journal.ts";

/** A file whose disk fails, or answers when `answering` says so. */
async function open() {
  const disk = { content: Buffer.alloc(0) as Buffer, isBroken: false, isOpen: true, answering: Promise.resolve() };
  const write = async (content: Buffer) => {
    disk.isOpen = true;
    await disk.answering;
    if (disk.isBroken) throw new Error("the disk is full");
    disk.content = content;
  };
  const file: AppendFile = {
    get sizeBytes() {
      return disk.content.length;
    },
    append: (bytes) => write(Buffer.concat([disk.content, bytes])),
    replace: (parts) => write(Buffer.concat([...parts])),
    read: async (position, length) => disk.content.subarray(position, position + length),
    isInPlace: async () => true,
    async close() {
      disk.isOpen = false;
    },
  };
  const clock = new HandClock();
  const { journal } = await openJournal({ file, clock, onTrouble() {} });
  const kept = async () => {
    const { found } = await openJournal({ file, clock, onTrouble() {} });
    return [...found.entries.keys()];
  };
  return { disk, clock, journal, kept };
}

test("Journal.close() waits for the change that is being written, closes the file, and leaves no timer", async () => {
  const { disk, clock, journal, kept } = await open();
  disk.isBroken = true;
  await assert.rejects(journal.put("a", 1), JournalError);
  assert.equal(clock.timerCount, 1);
  const answer = Promise.withResolvers<void>();
  Object.assign(disk, { isBroken: false, answering: answer.promise });
  const written = journal.put("b", 2);
  let isClosed = false;
  const closing = journal.close().then(() => {
    isClosed = true;
  });
  await settled();
  assert.deepEqual([isClosed, disk.isOpen], [false, true]);
  answer.resolve();
  await Promise.all([written, closing]);
  assert.deepEqual([disk.isOpen, clock.timerCount, await kept()], [false, 0, ["a", "b"]]);
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
