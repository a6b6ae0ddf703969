import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { type Clock, systemClock } from "../async/index.ts";
import type { AppendFile } from "../kernel/index.ts";
import { JournalError } from "./error.ts";
import { Journal } from "./journal.ts";

/** A file in memory, whose disk can fail. */
class PaperFile implements AppendFile {
  found: Buffer;
  content: Buffer;
  failure: Error | undefined;
  readonly writes: ("append" | "replace")[] = [];

  constructor(found: Buffer = Buffer.alloc(0)) {
    this.found = found;
    this.content = found;
  }

  get sizeBytes(): number {
    return this.content.length;
  }

  append = (bytes: Uint8Array) => this.#write("append", Buffer.concat([this.content, bytes]));
  replace = (bytes: Uint8Array) => this.#write("replace", Buffer.from(bytes));
  close = async () => {};

  async #write(how: "append" | "replace", content: Buffer): Promise<void> {
    await setImmediate();
    if (this.failure) throw this.failure;
    this.writes.push(how);
    this.content = content;
  }
}

function open(found?: Buffer, clock: Clock = systemClock) {
  const file = new PaperFile(found);
  const troubles: (string | undefined)[] = [];
  const journal = new Journal({ file, clock, onTrouble: (problem) => troubles.push(problem) });
  return { file, journal, troubles };
}

/** What the next process would find. */
const kept = (file: PaperFile) => Object.fromEntries(open(file.content).journal.found.entries);

test("Journal keeps the latest value of each key", async () => {
  const { file, journal } = open();
  await journal.put("a", { step: 1 });
  await journal.put("b", [true, null]);
  await journal.put("a", { step: 2 });
  await journal.drop("b");
  assert.deepEqual(kept(file), { a: { step: 2 } });
});

test("Journal writes changes that come while the disk is busy at once", async () => {
  const { file, journal } = open();
  await Promise.all(Array.from({ length: 50 }, (_, index) => journal.put(`key ${index}`, index)));
  assert.ok(file.writes.length <= 2, file.writes.join());
  assert.equal(Object.keys(kept(file)).length, 50);
});

test("Journal takes what is legible of a damaged file, and mends it with the first write", async () => {
  const { file, journal } = open();
  await journal.put("a", 1);
  await journal.put("b", 2);
  const next = open(file.content.subarray(0, -3));
  assert.deepEqual([...next.journal.found.entries], [["a", 1]]);
  assert.ok(next.journal.found.damagedBytes > 0);
  await next.journal.put("c", 3);
  assert.equal(open(next.file.content).journal.found.damagedBytes, 0);
  assert.deepEqual(kept(next.file), { a: 1, c: 3 });
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
  const { file, journal, troubles } = open(undefined, clock);
  await journal.put("a", 1);
  file.failure = new Error("ENOSPC: no space left on device, write");
  await assert.rejects(journal.put("b", 2), (error) => error instanceof JournalError && /ENOSPC/.test(error.message));
  await assert.rejects(journal.drop("a"), JournalError);
  assert.deepEqual(kept(file), { a: 1 });
  file.failure = undefined;
  timers.pop()?.();
  await journal.close();
  assert.deepEqual(kept(file), { b: 2 });
  assert.deepEqual([troubles.length, troubles.at(-1)], [3, undefined]);
});

test("Journal writes the file anew when most of it is history", async () => {
  const { file, journal } = open();
  const long = "x".repeat(40_000);
  for (let round = 0; round < 12; round++) await journal.put("a", `${long}${round}`);
  assert.ok(file.writes.includes("replace"));
  assert.ok(file.content.length < 300_000);
  assert.deepEqual(kept(file), { a: `${long}11` });
});
