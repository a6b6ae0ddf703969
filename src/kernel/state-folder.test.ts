import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { FileRemovedError } from "./append-file.ts";
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
  assert.deepEqual([file.sizeBytes, (await file.read(0, 10)).length], [0, 0]);
  for (const text of ["one,", "two,"]) await file.append(Buffer.from(text));
  await file.close();
  const again = await folder.openAppend("journal");
  assert.deepEqual(
    [String(await again.read(0, 10)), String(await again.read(4, 2)), again.sizeBytes],
    ["one,two,", "tw", 8],
  );
  await again.replace([Buffer.from("thr"), Buffer.from("ee,")]);
  await again.append(Buffer.from("four"));
  await again.close();
  assert.equal(await folder.read("journal"), "three,four");
  assert.deepEqual(await readdir(parent), ["journal"]);
});

test("openStateFolder() makes the folder again where it was removed, with what was in the file", async (t) => {
  const parent = await mkdtemp(join(tmpdir(), "state-"));
  t.after(() => rm(parent, { recursive: true }));
  const folder = await openStateFolder(join(parent, "state"));
  const file = await folder.openAppend("journal");
  t.after(() => file.close());
  await file.append(Buffer.from("one,"));
  assert.equal(await file.isInPlace(), true);
  await rm(folder.path, { recursive: true });
  assert.equal(await file.isInPlace(), false);
  await assert.rejects(file.append(Buffer.from("two,")), FileRemovedError);
  await file.replace([Buffer.from("one,two,")]);
  assert.equal(await folder.read("journal"), "one,two,");
  assert.equal((await stat(folder.path)).mode & 0o777, 0o700);
});
