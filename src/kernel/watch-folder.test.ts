import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { needs } from "../../test/needs.ts";
import { systemClock } from "../async/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
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

const ASSUMES = `
import { systemClock } from ${JSON.stringify(new URL("../async/index.ts", import.meta.url))};
import { watchFolder } from ${JSON.stringify(new URL("./watch-folder.ts", import.meta.url))};
const folder = watchFolder("/proc", systemClock);
folder.onChange(() => process.exit(0));
setTimeout(() => process.exit(1), 10_000);
`;

test("watchFolder() without inotify assumes a change at each try", (t) => {
  if (!needs(t, "userns")) return;
  const none = 'echo 0 > /proc/sys/user/max_inotify_instances; exec "$@"';
  const node = [process.execPath, "--input-type=module", "-e", ASSUMES];
  const { status, stderr } = spawnSync("unshare", ["-Ur", "sh", "-ec", none, "sh", ...node], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
});

test("watchFolder() hears nothing more of a folder in whose place another one is", async (t) => {
  const base = mkdtempSync(join(tmpdir(), "watch-"));
  const [path, former] = [join(base, "plugins"), join(base, "former")];
  mkdirSync(path);
  const clock = new HandClock();
  const folder = watchFolder(path, clock);
  t.after(() => {
    folder.close();
    rmSync(base, { recursive: true });
  });
  renameSync(path, former);
  mkdirSync(path);
  await clock.pass(1_000);
  let heard = 0;
  folder.onChange(() => {
    heard += 1;
  });
  const heardAfter = async (name: string) => {
    heard = 0;
    writeFileSync(name, "");
    for (let turn = 0; turn < 10; turn++) await setImmediate(); // the kernel has queued it by now
    return heard > 0;
  };
  for (let turn = 0; turn < 10; turn++) await setImmediate();
  assert.deepEqual([await heardAfter(join(former, "a")), await heardAfter(join(path, "a"))], [false, true]);
});
