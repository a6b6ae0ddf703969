import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openStateFolder } from "./state-folder.ts";

test("openStateFolder() keeps what was replaced, for root alone, and leaves nothing else behind", async (t) => {
  const parent = await mkdtemp(join(tmpdir(), "state-"));
  t.after(() => rm(parent, { recursive: true }));
  const folder = await openStateFolder(join(parent, "a", "b"));
  assert.equal(await folder.read("token-namespace"), undefined);
  await folder.replace("token-namespace", "one");
  await folder.replace("token-namespace", "two");
  assert.equal(await (await openStateFolder(folder.path)).read("token-namespace"), "two");
  assert.deepEqual(await readdir(folder.path), ["token-namespace"]);
  assert.equal((await stat(join(folder.path, "token-namespace"))).mode & 0o777, 0o600);
  assert.equal((await stat(folder.path)).mode & 0o777, 0o700);
});

test("openStateFolder() refuses names that leave the folder", async (t) => {
  const parent = await mkdtemp(join(tmpdir(), "state-"));
  t.after(() => rm(parent, { recursive: true }));
  const folder = await openStateFolder(parent);
  await assert.rejects(folder.read("../secret"), /Cannot use/);
});

test("openStateFolder() appends to a file, and takes up what is in it", async (t) => {
  const parent = await mkdtemp(join(tmpdir(), "state-"));
  t.after(() => rm(parent, { recursive: true }));
  const folder = await openStateFolder(parent);
  const file = await folder.openAppend("journal");
  assert.equal(file.found.length, 0);
  for (const text of ["one,", "two,"]) await file.append(Buffer.from(text));
  await file.close();
  const again = await folder.openAppend("journal");
  assert.deepEqual([String(again.found), again.sizeBytes], ["one,two,", 8]);
  await again.replace(Buffer.from("three,"));
  await again.append(Buffer.from("four"));
  await again.close();
  assert.equal(await folder.read("journal"), "three,four");
  assert.deepEqual(await readdir(parent), ["journal"]);
});
