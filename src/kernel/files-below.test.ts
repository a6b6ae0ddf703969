import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { filesBelow } from "./files-below.ts";

test("filesBelow() names each file of a mounted ConfigMap and of folders once, and ends where there are too many", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "files-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(join(folder, "..2026"));
  mkdirSync(join(folder, "more"));
  writeFileSync(join(folder, "..2026", "a"), "");
  writeFileSync(join(folder, "more", "b"), "");
  symlinkSync("..2026", join(folder, "..data"));
  symlinkSync("..data/a", join(folder, "a"));
  const found = await filesBelow(folder, 6);
  assert.deepEqual(found, [join(folder, "a"), join(folder, "more", "b")]);
  await assert.rejects(filesBelow(folder, 4), { code: "EFBIG", detail: "there are more than 4 files in it" });
  await assert.rejects(filesBelow(join(folder, "gone"), 4), { code: "ENOENT" });
});
