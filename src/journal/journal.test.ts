import assert from "node:assert/strict";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { FATES, UnsyncedDisk } from "../../sandbox/machine/unsynced-disk.ts";
import { type Clock, systemClock, systemRandom } from "../async/index.ts";
import { openStateFolder } from "../kernel/index.ts";
import { JournalError } from "./error.ts";
import { type JournalOptions, openJournal } from "./journal.ts";
import type { Json } from "./json.ts";

const PATH = "/state/journal";

/** A disk that can fail, and knows what was written. */
class CountedDisk extends UnsyncedDisk {
  failure: Error | undefined;
  longestWrite = 0;
  writtenBytes = 0;
  readonly writes: ("append" | "replace")[] = [];

  override onCall: UnsyncedDisk["onCall"] = (call, _path, bytes) => {
    if (this.failure) return { bytes: 0, error: this.failure };
    this.longestWrite = Math.max(this.longestWrite, bytes);
    this.writtenBytes += bytes;
    if (call === "datasync") this.writes.push("append");
    if (call === "rename") this.writes.push("replace");
    return undefined;
  };

  get sizeBytes(): Promise<number> {
    return this.stat(PATH).then((facts) => facts?.size ?? 0);
  }

  /** An operator removes the file. */
  removeFile(): void {
    this.emptyFolder("/state");
  }
}

async function fileOn(disk: UnsyncedDisk) {
  return await (await openStateFolder("/state", { disk, random: systemRandom })).openAppend("journal");
}

async function open(disk = new CountedDisk(), clock: Clock = systemClock) {
  const troubles: (string | undefined)[] = [];
  const onTrouble = (problem: string | undefined) => void troubles.push(problem);
  const { journal, found: before } = await openJournal({ file: await fileOn(disk), clock, onTrouble });
  return { disk, journal, troubles, ...before };
}

/** What the next process would find. */
const kept = async (disk: CountedDisk) => Object.fromEntries((await open(disk)).entries);

/** How so many changes to a new journal are written: the first one makes the file. */
const firstWrites = (count: number) => ["replace", ...Array(count - 1).fill("append")];

test("Journal keeps the latest value of each key", async () => {
  const { disk, journal } = await open();
  await journal.put("a", { step: 1 });
  await journal.put("b", [true, null]);
  await journal.put("a", { step: 2 });
  await journal.drop("b");
  assert.deepEqual(await kept(disk), { a: { step: 2 } });
});

test("Journal writes changes that come while the disk is busy at once", async () => {
  const { disk, journal } = await open();
  await Promise.all(Array.from({ length: 50 }, (_, index) => journal.put(`key ${index}`, index)));
  assert.ok(disk.writes.length <= 2, disk.writes.join());
  assert.equal(Object.keys(await kept(disk)).length, 50);
});

test("Journal takes what is legible of a damaged file, and mends it with the first write", async () => {
  const { disk, journal } = await open();
  await journal.put("a", 1);
  await journal.put("b", 2);
  await (await disk.open(PATH, "append")).truncate((await disk.sizeBytes) - 3);
  const next = await open(disk);
  assert.deepEqual([...next.entries], [["a", 1]]);
  assert.ok(next.damagedBytes > 0);
  await next.journal.put("c", 3);
  assert.equal((await open(disk)).damagedBytes, 0);
  assert.deepEqual(await kept(disk), { a: 1, c: 3 });
});

test("Journal refuses what it cannot keep, says so, and catches up by itself", async () => {
  const timers: (() => void)[] = [];
  const clock: Clock = {
    ...systemClock,
    after(_delayMs, callback) {
      timers.push(callback);
      return { cancel: () => timers.splice(timers.indexOf(callback), 1) };
    },
  };
  const { disk, journal, troubles } = await open(new CountedDisk(), clock);
  await journal.put("a", 1);
  disk.failure = new Error("ENOSPC: no space left on device, write");
  await assert.rejects(journal.put("b", 2), (error) => error instanceof JournalError && /ENOSPC/.test(error.message));
  await assert.rejects(journal.drop("a"), JournalError);
  assert.deepEqual(await kept(disk), { a: 1 });
  disk.failure = undefined;
  timers.pop()?.();
  await journal.close();
  assert.deepEqual(await kept(disk), { b: 2 });
  assert.deepEqual([troubles.length, troubles.at(-1)], [3, undefined]);
});

test("Journal refuses a drop that is requested again as long as the disk has not taken the first one", async () => {
  const { disk, journal } = await open();
  await journal.put("a", 1);
  disk.failure = new Error("EIO: i/o error, write");
  await assert.rejects(journal.drop("a"), JournalError);
  await assert.rejects(journal.drop("a"), JournalError);
  disk.failure = undefined;
  await journal.drop("a");
  assert.deepEqual(await kept(disk), {});
  await journal.close();
});

test("Journal takes nothing once it is closed: the file would be open again for good", async () => {
  const { disk, journal } = await open();
  await journal.put("a", 1);
  const waiting = journal.put("b", 2);
  await journal.close();
  await waiting;
  const isClosed = (error: unknown) => error instanceof JournalError && error.fault.kind === "closed";
  await assert.rejects(journal.put("c", 3), isClosed);
  await assert.rejects(journal.drop("a"), isClosed);
  await journal.check();
  assert.deepEqual(await kept(disk), { a: 1, b: 2 });
});

test("Journal writes the file again when most of it is history, in slices, and not before", async () => {
  const { disk, journal } = await open();
  const long = "x".repeat(40_000);
  for (let index = 0; index < 20; index++) await journal.put(`key ${index}`, `${long}0`);
  const before = await disk.sizeBytes;
  assert.deepEqual(disk.writes, firstWrites(20));
  for (let round = 1; round <= 20; round++) await journal.put("key 0", `${long}${round}`);
  assert.deepEqual(disk.writes.slice(20), Array(20).fill("append"), "no more than half of it is history");
  await journal.put("key 0", "short");
  assert.equal(disk.writes.at(-1), "replace");
  assert.ok((await disk.sizeBytes) < before && disk.longestWrite <= 256 * 1024);
  const values = await kept(disk);
  assert.deepEqual([Object.keys(values).length, values["key 0"], values["key 19"]], [20, "short", `${long}0`]);
});

test("Journal leaves a small file alone, however much of it is history", async () => {
  const { disk, journal } = await open();
  for (let round = 0; round < 50; round++) await journal.put("key", round);
  assert.deepEqual(disk.writes, firstWrites(50));
});

test("Journal writes as much for a change when it is full as when it is empty", async () => {
  const written = async (entries: number) => {
    const { disk, journal } = await open();
    const connection = { text: "x".repeat(12_000) };
    await Promise.all(Array.from({ length: entries }, (_, index) => journal.put(`connection ${index}`, connection)));
    disk.writtenBytes = 0;
    for (let round = 0; round < 100; round++) {
      await journal.put("connection new", connection);
      await journal.drop("connection new");
    }
    return disk.writtenBytes;
  };
  const [empty, full] = [await written(0), await written(32)];
  assert.ok(full <= 2 * empty, `${empty} bytes for 200 changes when empty, ${full} when full`);
});

test("Journal writes everything again when its file has been removed, with the change that noticed it, and says so", async () => {
  const { disk, journal, troubles } = await open();
  await journal.put("a", 1);
  disk.removeFile();
  await journal.put("b", 2);
  assert.deepEqual(await kept(disk), { a: 1, b: 2 });
  assert.match(troubles[0] ?? "", /removed, or changed by another program/);
  assert.deepEqual([troubles.length, troubles[1]], [2, undefined]);
  disk.removeFile();
  await journal.check();
  assert.deepEqual([(await disk.sizeBytes) > 0, troubles.length], [true, 4]);
  const writes = disk.writes.length;
  await journal.check();
  assert.deepEqual([disk.writes.length, troubles.length], [writes, 4]);
});

test("Journal refuses changes while a removed file cannot be made again, and catches up", async () => {
  const { disk, journal, troubles } = await open();
  await journal.put("a", 1);
  disk.removeFile();
  disk.failure = new Error("EROFS");
  await journal.check();
  await assert.rejects(journal.put("b", 2), JournalError);
  assert.ok(troubles.length > 0 && troubles.every((problem) => problem !== undefined));
  disk.failure = undefined;
  await journal.put("c", 3);
  await journal.close();
  assert.deepEqual([await kept(disk), troubles.at(-1)], [{ a: 1, b: 2, c: 3 }, undefined]);
});

test("openJournal() decides in the order of ranks which records are kept, and drops the others from the disk", async () => {
  const { disk, journal } = await open();
  for (const key of ["b 1", "a 1", "b 2", "a 2"]) await journal.put(key, key);
  const requested: string[] = [];
  const selection: JournalOptions["selection"] = {
    rank: (key) => (key.startsWith("a") ? 0 : 1),
    keeps(key, value) {
      requested.push(key);
      assert.equal(value, key);
      return key !== "b 1";
    },
  };
  const next = await openJournal({ file: await fileOn(disk), clock: systemClock, onTrouble: () => {}, selection });
  assert.deepEqual(requested, ["a 1", "a 2", "b 1", "b 2"]);
  assert.deepEqual([...next.found.entries.keys()], ["a 1", "a 2", "b 2"]);
  await next.journal.close();
  assert.deepEqual(Object.keys(await kept(disk)).toSorted(), ["a 1", "a 2", "b 2"]);
});

/** Changes one after the other, as they are and as what they make of everything. */
const CHANGES: readonly (readonly [key: string, value?: Json])[] = [
  ["a", 1],
  ["b", "x".repeat(150_000)],
  ["a", 2],
  ["b", "y".repeat(150_000)],
  ["b"],
  ["c", [3]],
  ["a"],
];

/** Everything as it is after so many changes. */
function stateAfter(count: number): Readonly<Record<string, Json>> {
  const state = new Map<string, Json>();
  for (const [key, value] of CHANGES.slice(0, count)) {
    if (value === undefined) state.delete(key);
    else state.set(key, value);
  }
  return Object.fromEntries(state);
}

for (const [name, fate] of Object.entries(FATES)) {
  test(`Journal has every change that it has answered, wherever the power is cut, with unsynced changes ${name}`, async () => {
    const disk = new UnsyncedDisk();
    const onDisk = async (of: UnsyncedDisk) =>
      await openJournal({ file: await fileOn(of), clock: systemClock, onTrouble: () => {} });
    const { journal } = await onDisk(disk);
    const cuts: { readonly answered: number; readonly left: UnsyncedDisk }[] = [];
    let answered = 0;
    const cut = () => void cuts.push({ answered, left: disk.afterPowerCut(fate) });
    disk.onCall = cut;
    for (const [key, value] of CHANGES) {
      await (value === undefined ? journal.drop(key) : journal.put(key, value));
      answered += 1;
      cut();
    }
    assert.ok(cuts.length > 3 * CHANGES.length, `only ${cuts.length} instants`);
    for (const { answered: done, left } of cuts) {
      const entries = Object.fromEntries((await onDisk(left)).found.entries);
      const isSo = [done, done + 1].some((count) => isDeepStrictEqual(entries, stateAfter(count)));
      assert.ok(isSo, `after ${done} changes there were ${Object.keys(entries)}`);
    }
  });
}
