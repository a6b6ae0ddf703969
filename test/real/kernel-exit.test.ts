import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

test("exitNow() ends a process whose pool of threads hangs, after what it has printed", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "exit-"));
  t.after(() => rmSync(folder, { recursive: true }));
  execFileSync("mkfifo", [join(folder, "silent")]);
  const program = `
    import { readFile } from "node:fs";
    import { exitNow } from ${JSON.stringify(new URL("../../src/kernel/index.ts", import.meta.url).href)};
    for (let i = 0; i < 4; i += 1) readFile(${JSON.stringify(join(folder, "silent"))}, () => {});
    setTimeout(() => { process.stdout.write("last words"); exitNow(7); }, 50);`;
  const ended = spawnSync(process.execPath, ["--input-type=module", "-e", program], { timeout: 100_000 });
  assert.deepEqual([ended.status, String(ended.stdout)], [7, "last words"]);
});
