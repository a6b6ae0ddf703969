// In which order a state file reaches the disk, and what a failure leaves: on a disk that writes down each request.
import assert from "node:assert/strict";
import { basename, dirname } from "node:path";
import { test } from "node:test";
import { systemRandom } from "../async/index.ts";
import type { Disk } from "./disk.ts";
import { openStateFolder } from "./state-folder.ts";

const FOLDER = "/var/lib/state";

/** Files by path. A step that is named in `fails` fails with that code, once. */
function setUp() {
  const files = new Map<string, string>();
  const folders = new Set(["/var/lib"]);
  const steps: string[] = [];
  const fails = new Map<string, string>();
  const named = (path: string) => basename(path).replace(/\..*/, ".new");
  const step = (what: string, path: string) => {
    steps.push(`${what} ${named(path)}`);
    const code = fails.get(what);
    fails.delete(what);
    if (code) throw Object.assign(new Error(`${what}: ${code}`), { code });
  };
  const open: Disk["open"] = async (path, how) => {
    if (how === "create" && !folders.has(dirname(path))) throw Object.assign(new Error("open"), { code: "ENOENT" });
    step(how, path);
    if (how === "create") files.set(path, "");
    return {
      async read() {
        step("read bytes", path);
        return Buffer.from(files.get(path) ?? "");
      },
      async write(bytes) {
        step("write", path);
        files.set(path, `${files.get(path)}${Buffer.from(bytes)}`);
      },
      truncate: async () => step("truncate", path),
      datasync: async () => step("datasync", path),
      sync: async () => step("sync", path),
      close: async () => step("close", path),
    };
  };
  const disk: Disk = {
    open,
    async stat(path) {
      const text = files.get(path);
      if (text === undefined && !folders.has(path)) return undefined;
      return { id: path, size: text?.length ?? 0 };
    },
    async rename(from, to) {
      step("rename", from);
      files.set(to, files.get(from) ?? "");
      files.delete(from);
    },
    async unlink(path) {
      step("unlink", path);
      files.delete(path);
    },
    syncFolder: async (path) => step("sync folder", path),
    async makeFolder(path) {
      step("make folder", path);
      folders.add(path);
    },
    restrict: async (path) => step("restrict", path),
  };
  const opened = async () => {
    const folder = await openStateFolder(FOLDER, { disk, random: systemRandom });
    steps.length = 0;
    return folder;
  };
  /** As another process removes it. */
  const remove = () => {
    files.clear();
    folders.delete(FOLDER);
  };
  const text = (name: string) => files.get(`${FOLDER}/${name}`);
  return { files, folders, steps, fails, disk, opened, remove, text };
}

const written = ["create id.new", "write id.new", "sync id.new", "close id.new", "rename id.new", "sync folder state"];

test("StateFolder.replace() syncs the file before it gets its name, and its name after that", async () => {
  const { steps, opened, text } = setUp();
  await (await opened()).replace("id", "one");
  assert.deepEqual([steps, text("id")], [written, "one"]);
});

for (const [what, done] of [
  ["write", [...written.slice(0, 2), "close id.new", "unlink id.new"]],
  ["sync", [...written.slice(0, 4), "unlink id.new"]],
  ["close", [...written.slice(0, 4), "unlink id.new"]],
  ["rename", [...written.slice(0, 5), "unlink id.new"]],
] as const) {
  test(`StateFolder.replace() that fails at ${what} leaves the old text, and nothing besides`, async () => {
    const { files, steps, fails, opened, text } = setUp();
    const folder = await opened();
    await folder.replace("id", "one");
    steps.length = 0;
    fails.set(what, "ENOSPC").set("unlink", "EIO");
    await assert.rejects(folder.replace("id", "two"), { code: "ENOSPC" });
    assert.deepEqual([steps, text("id")], [done, "one"]);
    files.clear();
  });
}

test("openStateFolder() syncs the name of a folder that it makes, and works with one that may only be read", async () => {
  const { steps, fails, disk } = setUp();
  const parts = { disk, random: systemRandom };
  await openStateFolder(FOLDER, parts);
  assert.deepEqual(steps.splice(0), ["make folder state", "sync folder lib", "restrict state"]);
  fails.set("restrict", "EROFS");
  await openStateFolder(FOLDER, parts);
  assert.deepEqual(steps, ["restrict state"]);
  fails.set("restrict", "EPERM");
  await assert.rejects(openStateFolder(FOLDER, parts), { code: "EPERM" });
});

test("StateFolder.read() closes the file, also when it cannot be read", async () => {
  const { steps, fails, opened } = setUp();
  const folder = await opened();
  await folder.replace("id", "one");
  steps.length = 0;
  assert.equal(await folder.read("id"), "one");
  fails.set("read bytes", "EIO");
  await assert.rejects(folder.read("id"), { code: "EIO" });
  const reads = ["read id", "read bytes id", "close id"];
  assert.deepEqual(steps, [...reads, ...reads]);
});

test("StateFolder makes a folder that was removed again, and no other failure makes one", async () => {
  const { steps, fails, opened, remove, text } = setUp();
  const folder = await opened();
  fails.set("create", "EACCES");
  await assert.rejects(folder.replace("id", "one"), { code: "EACCES" });
  assert.deepEqual(steps.splice(0), ["create id.new"]);
  remove();
  await folder.replace("id", "one");
  assert.deepEqual([steps.slice(0, 2), text("id")], [["make folder state", "sync folder lib"], "one"]);
  remove();
  fails.set("create", "EIO");
  const says = /\/var\/lib\/state was removed, and cannot be made again \(create: EIO\); make it, then restart/;
  await assert.rejects(folder.replace("id", "one"), says);
});

test("StateFolder writes what it has read or replaced again beside a file that has gone, where that has gone too", async () => {
  const { files, fails, opened, remove, text } = setUp();
  files.set(`${FOLDER}/read`, "as it was");
  const folder = await opened();
  await folder.read("read");
  await folder.replace("id", "one");
  fails.set("rename", "EIO");
  await assert.rejects(folder.replace("failed", "never there"), { code: "EIO" });
  const journal = await folder.openAppend("journal");
  remove();
  await journal.replace([Buffer.from("entries")]);
  const now = ["read", "id", "failed", "journal"].map((name) => text(name));
  assert.deepEqual(now, ["as it was", "one", undefined, "entries"]);
  files.set(`${FOLDER}/id`, "by hand");
  await journal.replace([Buffer.from("entries")]);
  assert.equal(text("id"), "by hand");
  await journal.close();
});
