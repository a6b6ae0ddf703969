import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { FATES, UnsyncedDisk } from "../../sandbox/machine/unsynced-disk.ts";
import { systemRandom } from "../async/index.ts";
import { FileRemovedError } from "./append-file.ts";
import type { Disk } from "./disk.ts";
import { openStateFolder } from "./state-folder.ts";

const FULL = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
const bytes = (text: string) => Buffer.from(text);

let disk: UnsyncedDisk;
beforeEach(() => {
  disk = new UnsyncedDisk();
});

const openFile = async (of = disk) =>
  (await openStateFolder("/state", { disk: of, random: systemRandom })).openAppend("journal");

for (const [name, fate] of Object.entries(FATES)) {
  test(`AppendFile keeps what append() and replace() have answered, with unsynced changes ${name}`, async () => {
    const file = await openFile();
    const has = () => disk.afterPowerCut(fate).files["/state/journal"];
    await file.append(bytes("one,"));
    assert.equal(has(), "one,");
    await file.append(bytes("two,"));
    assert.equal(has(), "one,two,");
    await file.replace([bytes("thr"), bytes("ee,")]);
    assert.equal(has(), "three,");
    await file.append(bytes("four"));
    assert.equal(has(), "three,four");
  });

  test(`AppendFile.replace() leaves the old content or the new, wherever it is cut, with unsynced changes ${name}`, async () => {
    const file = await openFile();
    await file.append(bytes("old"));
    const seen = new Set<string | undefined>();
    disk.onCall = () => void seen.add(disk.afterPowerCut(fate).files["/state/journal"]);
    await file.replace([bytes("n"), bytes("ew")]);
    seen.add(disk.afterPowerCut(fate).files["/state/journal"]);
    assert.deepEqual([...seen].toSorted(), ["new", "old"]);
  });
}

test("AppendFile.append() cuts off what a full disk took of it", async () => {
  const file = await openFile();
  await file.append(bytes("one,"));
  disk.onCall = (call) => (call === "write" ? { bytes: 2, error: FULL } : undefined);
  await assert.rejects(file.append(bytes("two,")), FULL);
  assert.deepEqual([disk.files["/state/journal"], file.sizeBytes], ["one,", 4]);
  disk.onCall = () => undefined;
  await file.append(bytes("three"));
  assert.equal(disk.files["/state/journal"], "one,three");
});

test("AppendFile.append() says what failed first, though the rest cannot be cut off either", async () => {
  const file = await openFile();
  await file.append(bytes("one,"));
  disk.onCall = (call) => {
    if (call === "write") return { bytes: 2, error: FULL };
    return call === "truncate" ? { bytes: 0, error: new Error("EIO: i/o error, ftruncate") } : undefined;
  };
  await assert.rejects(file.append(bytes("two,")), FULL);
});

test("AppendFile.replace() leaves nothing behind on a full disk", async () => {
  const file = await openFile();
  await file.append(bytes("one,"));
  disk.onCall = (call) => (call === "write" ? { bytes: 2, error: FULL } : undefined);
  await assert.rejects(file.replace([bytes("two,")]), FULL);
  assert.deepEqual(disk.files, { "/state/journal": "one," });
});

test("AppendFile.append() says when its file has been removed, before and after it was opened, and replace() mends that", async () => {
  const first = await openFile();
  await first.append(bytes("one,"));
  disk.removeFolder("/state");
  await assert.rejects(first.append(bytes("two,")), FileRemovedError);
  await first.replace([bytes("one,two,")]);
  await first.append(bytes("three,"));
  assert.deepEqual(disk.files, { "/state/journal": "one,two,three," });
  await first.close();
  disk.removeFolder("/state");
  await assert.rejects(first.append(bytes("four,")), FileRemovedError);
  assert.deepEqual(disk.files, {});
});

test("AppendFile.append() says when another program has written to the file, or put another one in its place", async () => {
  const [ours, theirs] = [await openFile(), await openFile()];
  await ours.append(bytes("one,"));
  await theirs.replace([bytes("1111")]);
  assert.equal(await ours.isInPlace(), false);
  await assert.rejects(ours.append(bytes("two,")), FileRemovedError);
  await ours.replace([bytes("mine")]);
  assert.equal(await ours.isInPlace(), true);
  const inPlace = await openFile(); // the same file, written to by another program
  await inPlace.append(bytes("theirs"));
  assert.equal(await ours.isInPlace(), false);
  await assert.rejects(ours.append(bytes("more")), FileRemovedError);
});

test("AppendFile.replace() says what to do when the folder cannot be made again", async () => {
  const file = await openFile();
  await file.append(bytes("one,"));
  disk.removeFolder("/state");
  disk.makeFolder = async () => {}; // A mount, whose folder on the host has been removed.
  await assert.rejects(
    file.replace([bytes("one,")]),
    /\/state was removed, and cannot be made again \(ENOENT.*restart the pod/,
  );
});

test("StateFolder writes its other files again where they have gone with the one that is appended to", async () => {
  const folder = await openStateFolder("/state", { disk, random: systemRandom });
  await folder.replace("token-namespace", "secret");
  const next = await openStateFolder("/state", { disk, random: systemRandom });
  assert.equal(await next.read("token-namespace"), "secret");
  const file = await next.openAppend("journal");
  await file.append(bytes("one,"));
  for (const gone of [() => disk.removeFolder("/state"), () => disk.emptyFolder("/state")]) {
    gone();
    await file.replace([bytes("one,")]);
    assert.deepEqual(disk.afterPowerCut(() => false).files, {
      "/state/journal": "one,",
      "/state/token-namespace": "secret",
    });
  }
});

test("AppendFile has one handle to write and one to read, none of a file that it has replaced, and none after close()", async () => {
  const handles = { open: 0, opened: 0 };
  const counted: Disk = {
    stat: (path) => disk.stat(path),
    rename: (from, to) => disk.rename(from, to),
    unlink: (path) => disk.unlink(path),
    syncFolder: (path) => disk.syncFolder(path),
    makeFolder: (path) => disk.makeFolder(path),
    restrict: () => disk.restrict(),
    async open(path, how) {
      const file = await disk.open(path, how);
      handles.open += 1;
      handles.opened += 1;
      let isOpen = true;
      const use = <T>(work: () => Promise<T>) => (isOpen ? work() : Promise.reject(new Error("it is closed")));
      return {
        read: (position, length) => use(() => file.read(position, length)),
        write: (part) => use(() => file.write(part)),
        truncate: (size) => use(() => file.truncate(size)),
        datasync: () => use(() => file.datasync()),
        sync: () => use(() => file.sync()),
        async close() {
          if (isOpen) handles.open -= 1;
          isOpen = false;
          await file.close();
        },
      };
    },
  };
  const folder = await openStateFolder("/state", { disk: counted, random: systemRandom });
  const file = await folder.openAppend("journal");
  await file.append(bytes("one,"));
  assert.equal(handles.open, 0, "it was made whole");
  for (let times = 0; times < 2; times += 1) await file.append(bytes("two,"));
  for (let times = 0; times < 2; times += 1) await file.read(0, 4);
  assert.deepEqual(handles, { open: 2, opened: 3 });
  await file.replace([bytes("three,")]);
  assert.equal(handles.open, 0);
  assert.equal(String(await file.read(0, 10)), "three,");
  await file.append(bytes("four"));
  assert.equal(handles.open, 2);
  await file.close();
  assert.equal(handles.open, 0);
  assert.equal(String(await file.read(0, 10)), "three,four");
  await file.close();
  assert.equal(handles.open, 0);
});

test("AppendFile.replace() brings back the other files of a folder that was removed, as they were read or replaced last", async () => {
  const folder = await openStateFolder("/state", { disk, random: systemRandom });
  await folder.replace("token-namespace", "one");
  await folder.replace("token-namespace", "two");
  await (await openStateFolder("/state", { disk, random: systemRandom })).replace("other", "read");
  assert.equal(await folder.read("other"), "read");
  const file = await folder.openAppend("journal");
  await file.append(bytes("one,"));
  disk.removeFolder("/state");
  await file.replace([bytes("one,")]);
  assert.deepEqual(disk.files, { "/state/journal": "one,", "/state/other": "read", "/state/token-namespace": "two" });
});
