import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readSmallFile } from "./small-file.ts";

test("readSmallFile() reads files up to its limit, and neither devices, folders nor FIFOs", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "small-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const at = (name: string) => join(folder, name);
  const whole = "é".repeat(512 * 1024);
  writeFileSync(at("whole"), whole);
  symlinkSync("whole", at("link"));
  writeFileSync(at("larger"), `${whole}x`);
  assert.equal(spawnSync("mkfifo", [at("fifo")]).status, 0);
  assert.equal(await readSmallFile(at("link"), 1), whole);
  assert.match(await readSmallFile("/proc/self/status", 1), /^Name:/);
  const tooLarge = `Cannot read ${at("larger")}: it is larger than 1 MiB (EFBIG)`;
  await assert.rejects(readSmallFile(at("larger"), 1), { code: "EFBIG", message: tooLarge });
  for (const path of ["/dev/zero", folder, at("fifo")]) {
    await assert.rejects(readSmallFile(path, 1), { code: "EINVAL", detail: "it is no file" }, path);
  }
  await assert.rejects(readSmallFile(at("gone"), 1), { code: "ENOENT", detail: undefined });
});
