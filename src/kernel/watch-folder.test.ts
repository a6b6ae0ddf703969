import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock } from "../async/index.ts";
import { type WatchedFolder, watchFolder } from "./watch-folder.ts";

function open(t: TestContext): WatchedFolder {
  const base = mkdtempSync(join(tmpdir(), "watch-"));
  const folder = watchFolder(join(base, "plugins"), systemClock);
  t.after(() => {
    folder.close();
    rmSync(base, { recursive: true });
  });
  return folder;
}

function nextChange(folder: WatchedFolder): Promise<void> {
  return new Promise((resolve) => {
    const stop = folder.onChange(() => {
      stop();
      resolve();
    });
  });
}

test("watchFolder() tells apart two files that had one name", async (t) => {
  const folder = open(t);
  mkdirSync(folder.path);
  await nextChange(folder); // the folder has come
  assert.equal(folder.identity("a.sock"), undefined);
  for (const what of ["made", "removed", "made again"]) {
    const before = folder.identity("a.sock");
    const change = nextChange(folder);
    if (what === "removed") rmSync(join(folder.path, "a.sock"));
    else writeFileSync(join(folder.path, "a.sock"), "");
    await change;
    assert.notEqual(folder.identity("a.sock"), before, what);
  }
});

test("watchFolder() continues when the folder itself is made again", async (t) => {
  const folder = open(t);
  for (let round = 0; round < 2; round++) {
    mkdirSync(folder.path);
    while (folder.identity("a.sock") === undefined) {
      const change = nextChange(folder);
      writeFileSync(join(folder.path, "a.sock"), "");
      await change;
    }
    rmSync(folder.path, { recursive: true });
    assert.equal(folder.identity("a.sock"), undefined);
  }
});

test("watchFolder() distinguishes a file from another one that has got its name and its inode number", (t) => {
  const folder = open(t);
  mkdirSync(folder.path);
  const path = join(folder.path, "a.sock");
  const seen = Array.from({ length: 5 }, () => {
    writeFileSync(path, "");
    const identity = folder.identity("a.sock");
    rmSync(path);
    return identity;
  });
  assert.equal(new Set(seen).size, seen.length, seen.join());
});
