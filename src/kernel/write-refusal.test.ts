import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { folderRefusal, writeRefusal } from "./write-refusal.ts";

test("folderRefusal() and writeRefusal() distinguish what is missing from what is no folder", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "refusal-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const [file, missing] = [join(folder, "file"), join(folder, "missing")];
  writeFileSync(file, "");
  const refusals = await Promise.all([folder, file, missing].map(folderRefusal));
  assert.deepEqual(refusals, [undefined, "ENOTDIR", "ENOENT"]);
  assert.deepEqual([await writeRefusal(file), await writeRefusal(missing)], [undefined, "ENOENT"]);
});
