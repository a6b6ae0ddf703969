import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { BlockingWrites } from "./blocking-writes.ts";
import { CgroupFolder, cgroupVersionOf } from "./cgroup-folder.ts";

function openRoot(t: TestContext): { readonly path: string; readonly root: CgroupFolder } {
  const path = mkdtempSync(join(tmpdir(), "cgroups-"));
  mkdirSync(join(path, "a/b"), { recursive: true });
  const root = CgroupFolder.open(path, new BlockingWrites());
  t.after(() => {
    root.close();
    rmSync(path, { recursive: true });
  });
  return { path, root };
}

test("CgroupFolder.beneath() opens what lies beneath, and follows no link", (t) => {
  const { path, root } = openRoot(t);
  const inner = root.beneath("a/b");
  assert.notEqual(inner.identity, root.identity);
  inner.close();
  symlinkSync("/", join(path, "out"));
  symlinkSync(join(path, "a"), join(path, "in"));
  for (const link of ["out", "out/tmp", "in", "in/b"]) {
    assert.throws(() => root.beneath(link), { code: /ELOOP|ENOTDIR/ });
  }
  for (const climb of ["..", "a/../..", "/tmp"]) assert.throws(() => root.beneath(climb), TypeError);
  assert.throws(() => root.beneath("a/c"), { code: "ENOENT" });
});

test("CgroupFolder stays with its folder when another takes the name", (t) => {
  const { path, root } = openRoot(t);
  const before = root.beneath("a");
  rmSync(join(path, "a"), { recursive: true });
  mkdirSync(join(path, "a/new"), { recursive: true });
  writeFileSync(join(path, "a/cgroup.procs"), ""); // every cgroup has one
  const after = root.beneath("a");
  assert.notEqual(before.identity, after.identity);
  assert.deepEqual(after.children(), ["new"]);
  assert.throws(() => before.beneath("new"), { code: "ENOENT" });
  before.close();
  after.close();
});

test("cgroupVersionOf() has no word for folders that are no cgroups", () => {
  assert.equal(cgroupVersionOf(tmpdir()), undefined);
  assert.equal(cgroupVersionOf("/no/such/folder"), undefined);
});
