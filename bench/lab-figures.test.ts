import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { labFigures } from "./lab-figures.ts";

test("labFigures() takes what the lab has left, and nothing where it has not run", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "figures-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "figures.json");
  assert.equal(labFigures(path), undefined);
  writeFileSync(path, JSON.stringify({ "linux_6.12": { bind_kernel_ms: { p50: 36 } } }));
  assert.deepEqual(labFigures(path), { "linux_6.12": { bind_kernel_ms: { p50: 36 } } });
  writeFileSync(path, "{");
  assert.throws(() => labFigures(path), SyntaxError);
});
