import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { GuestDisk } from "./guest-disk.ts";

const SECTOR = 512;
const FLUSH = 1;

/** What QEMU's blklogwrites writes (block/blklogwrites.c): a head of its own sector, then entries with their data. */
function logOf(
  entries: readonly { readonly sector?: number; readonly text?: string; readonly flags?: number }[],
): Buffer {
  const head = Buffer.alloc(SECTOR);
  head.writeBigUInt64LE(0x6a736677736872n, 0);
  head.writeBigUInt64LE(1n, 8);
  head.writeBigUInt64LE(BigInt(entries.findLastIndex(({ flags }) => flags === FLUSH) + 1), 16);
  head.writeUInt32LE(SECTOR, 24);
  const parts = entries.map(({ sector = 0, text, flags = 0 }) => {
    const data = Buffer.alloc(text === undefined ? 0 : SECTOR);
    data.write(text ?? "");
    const entry = Buffer.alloc(SECTOR);
    [sector, data.length / SECTOR, flags, data.length].map((value, at) =>
      entry.writeBigUInt64LE(BigInt(value), 8 * at),
    );
    return Buffer.concat([entry, data]);
  });
  return Buffer.concat([head, ...parts]);
}

function cut(t: { after(work: () => void): void }, logs: readonly Buffer[]) {
  const folder = mkdtempSync(join(tmpdir(), "guest-disk-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const disk = new GuestDisk(folder);
  const cuts = logs.map((log) => {
    disk.insert();
    writeFileSync(join(folder, "log"), log);
    return disk.cutPower();
  });
  const image = readFileSync(join(folder, "image"));
  const textAt = (sector: number) =>
    image.toString("latin1", sector * SECTOR, sector * SECTOR + 3).replaceAll("\0", "");
  return { cuts, textAt };
}

test("GuestDisk loses at a power cut what was written after the last flush, and keeps the rest in its order", (t) => {
  const { cuts, textAt } = cut(t, [
    logOf([
      { sector: 3, text: "old" },
      { sector: 4, text: "one" },
      { flags: FLUSH },
      { sector: 3, text: "new" },
      { flags: FLUSH },
      { sector: 4, text: "two" },
      { sector: 5, text: "six" },
    ]),
  ]);
  assert.deepEqual([textAt(3), textAt(4), textAt(5)], ["new", "one", ""]);
  assert.deepEqual(cuts, [{ kept: 3, lost: 2 }]);
});

test("GuestDisk is booted from what the cut before has left", (t) => {
  const flush = { flags: FLUSH };
  const { textAt } = cut(t, [
    logOf([{ sector: 3, text: "one" }, flush, { sector: 4, text: "two" }]),
    logOf([{ sector: 5, text: "six" }, flush]),
  ]);
  assert.deepEqual([textAt(3), textAt(4), textAt(5)], ["one", "", "six"]);
});

test("GuestDisk loses everything where nothing was flushed", (t) => {
  const { cuts, textAt } = cut(t, [logOf([{ sector: 3, text: "one" }]), Buffer.alloc(0)]);
  assert.deepEqual(
    [textAt(3), cuts],
    [
      "",
      [
        { kept: 0, lost: 1 },
        { kept: 0, lost: 0 },
      ],
    ],
  );
});

test("GuestDisk refuses a log that lacks what was flushed, and one of something else", (t) => {
  const log = logOf([{ sector: 3, text: "one" }, { flags: FLUSH }]);
  assert.throws(() => cut(t, [log.subarray(0, -SECTOR)]), /has 1 of 2 entries/);
  assert.throws(() => cut(t, [Buffer.alloc(3 * SECTOR, 1)]), /no log of a disk/);
});
