import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { BlockingWrites, openHostFiles } from "../../src/kernel/index.ts";

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "files-"));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

test("openHostFiles() reads, lists, follows and writes beneath its folder", async (t) => {
  const root = folder(t);
  const writes = new BlockingWrites();
  const files = openHostFiles(root, writes);
  writeFileSync(join(root, "numvfs"), "7\n");
  symlinkSync("../0000:01:10.0", join(root, "virtfn0"));
  assert.equal(await files.readText("numvfs"), "7");
  assert.deepEqual(await files.list("."), ["numvfs", "virtfn0"]);
  assert.equal(await files.readLink("virtfn0"), "../0000:01:10.0");
  assert.deepEqual([await files.exists("virtfn0"), await files.exists("virtfn1")], [true, false]);
  await files.writeText("numvfs", "4");
  assert.equal(readFileSync(join(root, "numvfs"), "utf8"), "4\n");
  await writes.close();
});

test("openHostFiles() says what the kernel said, and refuses to leave its folder", async (t) => {
  const root = folder(t);
  const writes = new BlockingWrites();
  const files = openHostFiles(root, writes);
  await assert.rejects(files.readText("none"), { code: "ENOENT", message: /read .*none/ });
  await assert.rejects(files.writeText("none", "1"), { code: "ENOENT" });
  await assert.rejects(files.list("none"), { code: "ENOENT" });
  writeFileSync(join(root, "plain"), "");
  await assert.rejects(files.readLink("plain"), { code: "EINVAL" });
  await assert.rejects(files.deviceNumber("plain"), { code: "ENODEV" });
  for (const path of ["../x", "/etc/passwd", "a/../../x"]) {
    assert.throws(() => void files.readText(path), /leads out of its folder/);
  }
  await writes.close();
});

test("HostFiles.deviceNumber() reads the numbers of a character device", async () => {
  const writes = new BlockingWrites();
  assert.deepEqual(await openHostFiles("/dev", writes).deviceNumber("null"), { major: 1, minor: 3 });
});

test("HostFiles.writeText() gives a write up that the kernel does not finish, while others go on", async (t) => {
  const root = folder(t);
  execFileSync("mkfifo", [join(root, "unbind")]);
  writeFileSync(join(root, "bind"), "");
  const writes = new BlockingWrites();
  const files = openHostFiles(root, writes);
  const stuck = Array.from({ length: 6 }, () => files.writeText("unbind", "x", { limitMs: 200 }));
  const outcomes = Promise.allSettled(stuck);
  await Promise.all(stuck.map((one) => assert.rejects(one, { code: "ETIMEDOUT", message: /within 200 ms/ })));
  await outcomes;
  assert.ok(writes.stuckCount >= 4);
  await files.writeText("bind", "0000:01:10.0");
  assert.equal(readFileSync(join(root, "bind"), "utf8"), "0000:01:10.0");
  const reader = openSync(join(root, "unbind"), "r");
  while (writes.stuckCount > 0) await new Promise(setImmediate);
  closeSync(reader);
  await writes.close();
});
