import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { FATES, UnsyncedDisk } from "../../sandbox/machine/unsynced-disk.ts";
import { type Clock, systemClock, systemRandom } from "../async/index.ts";
import { type AppendFile, FileRemovedError, openStateFolder } from "../kernel/index.ts";
import { JournalError } from "./error.ts";
import { type JournalOptions, openJournal } from "./journal.ts";
import type { Json } from "./json.ts";

/** A file in memory, whose disk can fail. */
class PaperFile implements AppendFile {
  content: Buffer;
  failure: Error | undefined;
  isRemoved = false;
  longestPart = 0;
  readonly writes: ("append" | "replace")[] = [];

  constructor(found: Buffer = Buffer.alloc(0)) {
    this.content = found;
  }

  get sizeBytes(): number {
    return this.content.length;
  }

  append = (bytes: Uint8Array) => this.#write("append", Buffer.concat([this.content, bytes]));
  replace = (parts: Iterable<Uint8Array>) => {
    const taken = [...parts];
    this.longestPart = Math.max(0, ...taken.map(({ length }) => length));
    return this.#write("replace", Buffer.concat(taken));
  };
  read = async (position: number, length: number) => this.content.subarray(position, position + length);
  isInPlace = async () => !this.isRemoved;
  close = async () => {};

  async #write(how: "append" | "replace", content: Buffer): Promise<void> {
    await setImmediate();
    if (this.failure) throw this.failure;
    if (how === "append" && this.isRemoved) throw new FileRemovedError();
    this.isRemoved = false;
    this.writes.push(how);
    this.content = content;
  }
}

async function open(found?: Buffer, clock: Clock = systemClock) {
  const file = new PaperFile(found);
  const troubles: (string | undefined)[] = [];
  const onTrouble = (problem: string | undefined) => void troubles.push(problem);
  const { journal, found: before } = await openJournal({ file, clock, onTrouble });
  return { file, journal, troubles, ...before };
}

/** What the next process would find. */
const kept = async (file: PaperFile) => Object.fromEntries((await open(file.content)).entries);

test("Journal keeps the latest value of each key", async () => {
  const { file, journal } = await open();
  await journal.put("a", { step: 1 });
  await journal.put("b", [true, null]);
  await journal.put("a", { step: 2 });
  await journal.drop("b");
  assert.deepEqual(await kept(file), { a: { step: 2 } });
});

test("Journal writes changes that come while the disk is busy at once", async () => {
  const { file, journal } = await open();
  await Promise.all(Array.from({ length: 50 }, (_, index) => journal.put(`key ${index}`, index)));
  assert.ok(file.writes.length <= 2, file.writes.join());
  assert.equal(Object.keys(await kept(file)).length, 50);
});

test("Journal takes what is legible of a damaged file, and mends it with the first write", async () => {
  const { file, journal } = await open();
  await journal.put("a", 1);
  await journal.put("b", 2);
  const next = await open(file.content.subarray(0, -3));
  assert.deepEqual([...next.entries], [["a", 1]]);
  assert.ok(next.damagedBytes > 0);
  await next.journal.put("c", 3);
  assert.equal((await open(next.file.content)).damagedBytes, 0);
  assert.deepEqual(await kept(next.file), { a: 1, c: 3 });
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
  const { file, journal, troubles } = await open(undefined, clock);
  await journal.put("a", 1);
  file.failure = new Error("ENOSPC: no space left on device, write");
  await assert.rejects(journal.put("b", 2), (error) => error instanceof JournalError && /ENOSPC/.test(error.message));
  await assert.rejects(journal.drop("a"), JournalError);
  assert.deepEqual(await kept(file), { a: 1 });
  file.failure = undefined;
  timers.pop()?.();
  await journal.close();
  assert.deepEqual(await kept(file), { b: 2 });
  assert.deepEqual([troubles.length, troubles.at(-1)], [3, undefined]);
});

test("Journal refuses a drop that is requested again as long as the disk has not taken the first one", async () => {
  const { file, journal } = await open();
  await journal.put("a", 1);
  file.failure = new Error("EIO: i/o error, write");
  await assert.rejects(journal.drop("a"), JournalError);
  await assert.rejects(journal.drop("a"), JournalError);
  file.failure = undefined;
  await journal.drop("a");
  assert.deepEqual(await kept(file), {});
  await journal.close();
});

test("Journal takes nothing once it is closed: the file would be open again for good", async () => {
  const { file, journal } = await open();
  await journal.put("a", 1);
  const waiting = journal.put("b", 2);
  await journal.close();
  await waiting;
  const isClosed = (error: unknown) => error instanceof JournalError && error.fault.kind === "closed";
  await assert.rejects(journal.put("c", 3), isClosed);
  await assert.rejects(journal.drop("a"), isClosed);
  await journal.check();
  assert.deepEqual(await kept(file), { a: 1, b: 2 });
});

test("Journal writes the file again when most of it is history, in slices, and not before", async () => {
  const { file, journal } = await open();
  const long = "x".repeat(40_000);
  for (let index = 0; index < 20; index++) await journal.put(`key ${index}`, `${long}0`);
  const before = file.content.length;
  assert.deepEqual(file.writes, Array(20).fill("append"));
  for (let round = 1; round <= 20; round++) await journal.put("key 0", `${long}${round}`);
  assert.deepEqual(file.writes.slice(20), Array(20).fill("append"), "no more than half of it is history");
  await journal.put("key 0", "short");
  assert.equal(file.writes.at(-1), "replace");
  assert.ok(file.content.length < before && file.longestPart <= 256 * 1024);
  const values = await kept(file);
  assert.deepEqual([Object.keys(values).length, values["key 0"], values["key 19"]], [20, "short", `${long}0`]);
});

test("Journal leaves a small file alone, however much of it is history", async () => {
  const { file, journal } = await open();
  for (let round = 0; round < 50; round++) await journal.put("key", round);
  assert.deepEqual(file.writes, Array(50).fill("append"));
});

test("Journal writes as much for a change when it is full as when it is empty", async () => {
  const written = async (entries: number) => {
    let bytes = 0;
    let sizeBytes = 0;
    const file: AppendFile = {
      get sizeBytes() {
        return sizeBytes;
      },
      read: async () => Buffer.alloc(0),
      isInPlace: async () => true,
      close: async () => {},
      async append({ length }) {
        sizeBytes += length;
        bytes += length;
      },
      async replace(parts) {
        sizeBytes = 0;
        for (const { length } of parts) await this.append(Buffer.alloc(length));
      },
    };
    const { journal } = await openJournal({ file, clock: systemClock, onTrouble: () => {} });
    const connection = { text: "x".repeat(12_000) };
    await Promise.all(Array.from({ length: entries }, (_, index) => journal.put(`connection ${index}`, connection)));
    bytes = 0;
    for (let round = 0; round < 1_000; round++) {
      await journal.put("connection new", connection);
      await journal.drop("connection new");
    }
    return bytes;
  };
  const [empty, full] = [await written(0), await written(256)];
  assert.ok(full <= 2 * empty, `${empty} bytes for 1,000 changes when empty, ${full} when full`);
});

test("Journal writes everything again when its file has been removed, with the change that noticed it, and says so", async () => {
  const { file, journal, troubles } = await open();
  await journal.put("a", 1);
  file.isRemoved = true;
  await journal.put("b", 2);
  assert.deepEqual(await kept(file), { a: 1, b: 2 });
  assert.match(troubles[0] ?? "", /removed, or changed by another program/);
  assert.deepEqual([troubles.length, troubles[1]], [2, undefined]);
  file.isRemoved = true;
  await journal.check();
  assert.deepEqual([file.isRemoved, troubles.length], [false, 4]);
  const writes = file.writes.length;
  await journal.check();
  assert.deepEqual([file.writes.length, troubles.length], [writes, 4]);
});

test("Journal refuses changes while a removed file cannot be made again, and catches up", async () => {
  const { file, journal, troubles } = await open();
  await journal.put("a", 1);
  file.isRemoved = true;
  file.failure = new Error("EROFS");
  await journal.check();
  await assert.rejects(journal.put("b", 2), JournalError);
  assert.ok(troubles.length > 0 && troubles.every((problem) => problem !== undefined));
  file.failure = undefined;
  await journal.put("c", 3);
  await journal.close();
  assert.deepEqual([await kept(file), troubles.at(-1)], [{ a: 1, b: 2, c: 3 }, undefined]);
});

test("openJournal() decides in the order of ranks which records are kept, and drops the others from the disk", async () => {
  const { file, journal } = await open();
  for (const key of ["b 1", "a 1", "b 2", "a 2"]) await journal.put(key, key);
  const asked: string[] = [];
  const selection: JournalOptions["selection"] = {
    rank: (key) => (key.startsWith("a") ? 0 : 1),
    keeps(key, value) {
      asked.push(key);
      assert.equal(value, key);
      return key !== "b 1";
    },
  };
  const next = await openJournal({ file, clock: systemClock, onTrouble: () => {}, selection });
  assert.deepEqual(asked, ["a 1", "a 2", "b 1", "b 2"]);
  assert.deepEqual([...next.found.entries.keys()], ["a 1", "a 2", "b 2"]);
  await next.journal.close();
  assert.deepEqual(Object.keys(await kept(file)).toSorted(), ["a 1", "a 2", "b 2"]);
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
    const onDisk = async (of: UnsyncedDisk) => {
      const file = await (await openStateFolder("/state", { disk: of, random: systemRandom })).openAppend("journal");
      return await openJournal({ file, clock: systemClock, onTrouble: () => {} });
    };
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
