import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../async/index.ts";
import { openPfConfigFile } from "./pf-config-file.ts";

test("openPfConfigFile() reports a ConfigMap whose link is swapped, and a file that comes", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "config-"));
  t.after(() => rmSync(folder, { recursive: true }));
  /** As kubelet writes a volume: a folder for each version, and a link that changes at once. */
  const publish = (version: string) => {
    mkdirSync(join(folder, version));
    writeFileSync(join(folder, version, "pci.config"), `# ${version}\n`);
    symlinkSync(version, join(folder, "..data_tmp"));
    renameSync(join(folder, "..data_tmp"), join(folder, "..data"));
  };
  publish("..first");
  symlinkSync("..data/pci.config", join(folder, "pci.config"));
  const file = openPfConfigFile(join(folder, "pci.config"), systemClock);
  const missing = openPfConfigFile(join(folder, "other.config"), systemClock);
  t.after(() => [file, missing].forEach((one) => void one.close()));
  assert.equal(await file.read(), "# ..first\n");
  await assert.rejects(missing.read(), { code: "ENOENT" });
  const changed = Promise.withResolvers<void>();
  const stop = file.onChange(() => changed.resolve());
  publish("..second");
  await changed.promise;
  stop();
  assert.equal(await file.read(), "# ..second\n");
});
