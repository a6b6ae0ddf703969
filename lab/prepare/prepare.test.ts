import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import { cachedFolder } from "./checksums.ts";
import { cpioArchive } from "./cpio.ts";
import { mirrorIn } from "./mirror.ts";
import { dependenciesOf } from "./modules.ts";
import { extractVmlinux } from "./vmlinux.ts";

test("cpioArchive() is what cpio makes", () => {
  // mkdir d && printf hi > d/f && chmod 640 d/f && printf 'd\nd/f\n' | cpio -o -H newc   (cpio 2.13; inode, mtime, links and owner 0 or 1 here)
  const archive = cpioArchive(["d"], [{ path: "d/f", mode: 0o640, bytes: Buffer.from("hi") }]).toString("latin1");
  const header = (mode: string, size: string, name: string) =>
    `07070100000000${mode}000000000000000000000001000000${"00"}${size}00000000000000000000000000000000${name}00000000`;
  assert.ok(archive.startsWith(`${header("000041ed", "00000000", "00000002")}d\0`));
  assert.ok(archive.includes(`${header("000081a0", "00000002", "00000004")}d/f\0`));
  assert.ok(archive.includes(`hi\0\0${"070701"}`));
  assert.ok(archive.includes("TRAILER!!!\0"));
  assert.equal(archive.length % 4, 0);
});

test("dependenciesOf() reads a module's own list, in the kernel's spelling", () => {
  const module = (text: string) => Buffer.from(`\x7fELF\0license=GPL\0depends=${text}\0retpoline=Y\0`, "latin1");
  assert.deepEqual(dependenciesOf(module("vfio,irq-bypass")), ["vfio", "irq_bypass"]);
  assert.deepEqual(dependenciesOf(module("")), []);
  assert.deepEqual(dependenciesOf(Buffer.from("\x7fELF\0")), []);
});

test("extractVmlinux() takes the kernel out of an image, and refuses what is none", async () => {
  const kernel = Buffer.from("\x7fELF and the rest of it");
  const unxz = () => Promise.reject(new Error("nothing here is xz"));
  const image = (payload: Buffer) => {
    const setup = Buffer.alloc(1024);
    setup.write("HdrS", 0x202);
    setup[0x1f1] = 1;
    const length = Buffer.alloc(4);
    length.writeUInt32LE(kernel.length);
    setup.writeUInt32LE(0, 0x248);
    setup.writeUInt32LE(payload.length + 4, 0x24c);
    return Buffer.concat([setup, payload, length]);
  };
  assert.deepEqual(await extractVmlinux(image(zstdCompressSync(kernel)), unxz), kernel);
  await assert.rejects(extractVmlinux(image(Buffer.from("BZh9....")), unxz), /packed in a way/);
  await assert.rejects(extractVmlinux(Buffer.alloc(2048), unxz), /no bzImage/);
});

test("cachedFolder() makes a folder once, and again when its recipe or its contents have changed", async (t) => {
  const home = mkdtempSync(join(tmpdir(), "lab-cache-"));
  t.after(() => rmSync(home, { recursive: true }));
  const folder = join(home, "thing");
  let made = 0;
  const make = async (fresh: string) => {
    made += 1;
    writeFileSync(join(fresh, "file"), "text");
    return ["a package"];
  };
  await cachedFolder(folder, { format: 1 }, make);
  await cachedFolder(folder, { format: 1 }, make);
  assert.equal(made, 1);
  writeFileSync(join(folder, "file"), "changed behind our back");
  await cachedFolder(folder, { format: 1 }, make);
  assert.equal(made, 2);
  await cachedFolder(folder, { format: 2 }, make);
  assert.equal(made, 3);
  const fails = async () => Promise.reject(new Error("no network"));
  await assert.rejects(cachedFolder(folder, { format: 3 }, fails), /no network/);
  await cachedFolder(folder, { format: 2 }, make);
  assert.equal(made, 3);
});

const sources = [
  {
    says: "one line",
    text: "# deb http://old/debian x main\ndeb [arch=amd64] http://mirror.test/debian bookworm main\n",
  },
  {
    says: "a stanza",
    text: "Types: deb\n# http://other.test/debian\nURIs: http://mirror.test/debian/\nSuites: bookworm\n",
  },
  { says: "several addresses", text: "URIs: http://mirror.test/debian-security http://mirror.test/debian\n" },
];
for (const { says, text } of sources) {
  test(`mirrorIn() finds the mirror in ${says}`, () => assert.equal(mirrorIn(text), "http://mirror.test/debian"));
}

test("mirrorIn() finds none among the sources of others", () => {
  assert.equal(
    mirrorIn("deb http://mirror.test/ubuntu noble main\ndeb http://mirror.test/debian-security x main\n"),
    undefined,
  );
});
