import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { BlockingWrites, deviceHolders, openHostFiles } from "../../src/kernel/index.ts";
import { needs } from "../needs.ts";

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
});

test("HostFiles.inode() of a device's folder in sysfs stays while it is there, and is never that of the next one of its name", (t) => {
  if (!needs(t, "netns")) return;
  // In a namespace and a sysfs of its own: the reader is a process there.
  const script = `
    mount -t sysfs sysfs /sys && for turn in 1 2 3 4 5; do
      ip link add again type bridge; stat -L -c %i /sys/class/net/again; ip link set again up
      stat -L -c %i /sys/class/net/again; ip link del again
    done`;
  const said = execFileSync("unshare", ["--net", "--mount", "sh", "-c", script], { encoding: "utf8" });
  const inodes = said.trim().split("\n");
  assert.deepEqual([inodes.length, new Set(inodes).size], [10, 5]);
  for (const turn of [0, 2, 4, 6, 8]) assert.equal(inodes[turn], inodes[turn + 1]);
});

test("HostFiles.inode() follows links, and says where nothing is", async (t) => {
  const root = folder(t);
  const files = openHostFiles(root, new BlockingWrites());
  writeFileSync(join(root, "one"), "");
  symlinkSync("one", join(root, "other"));
  assert.equal(await files.inode("other"), await files.inode("one"));
  assert.equal(await files.inode("one"), statSync(join(root, "one"), { bigint: true }).ino);
  await assert.rejects(files.inode("none"), { code: "ENOENT" });
});

test("HostFiles.deviceNumber() reads the numbers of a character device", async () => {
  const writes = new BlockingWrites();
  assert.deepEqual(await openHostFiles("/dev", writes).deviceNumber("null"), { major: 1, minor: 3 });
});

test("HostFiles.heldBy() finds no process where the kernel lets it open, or there is no device", async () => {
  const files = openHostFiles("/dev", new BlockingWrites());
  assert.equal(await files.heldBy("null"), undefined);
  assert.equal(await files.heldBy("no-such-device"), undefined);
});

test("deviceHolders() names each process that has the device open, and no other", async () => {
  const device = { major: 1, minor: 7 };
  const before = await deviceHolders("full", device);
  const holder = openSync("/dev/full", constants.O_RDONLY);
  const other = openSync("/dev/zero", constants.O_RDONLY);
  try {
    const found = (await deviceHolders("full", device)).filter((one) => !before.includes(one));
    assert.deepEqual(found, [`${process.pid} (${readFileSync("/proc/self/comm", "utf8").trim()})`]);
    const zero = await deviceHolders("zero", device);
    assert.ok(!zero.some((one) => one.startsWith(`${process.pid} `)));
  } finally {
    closeSync(holder);
    closeSync(other);
  }
});

/** A pipe that is full: a write to it hangs until `drain` has made room. */
function fullPipe(path: string): { drain(): void; close(): void } {
  assert.equal(spawnSync("mkfifo", [path]).status, 0);
  const end = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const block = Buffer.alloc(4096);
  untilEagain(() => writeSync(end, block));
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return {
    drain: () => untilEagain(() => readSync(reader, block)),
    close() {
      closeSync(end);
      closeSync(reader);
    },
  };
}

function untilEagain(act: () => void): void {
  try {
    for (;;) act();
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, "EAGAIN");
  }
}

test("HostFiles.writeText() gives a write up that the kernel does not finish, while others continue", async (t) => {
  const root = folder(t);
  const pipe = fullPipe(join(root, "unbind"));
  writeFileSync(join(root, "bind"), "");
  const before = readdirSync("/proc/self/fd").length;
  const writes = new BlockingWrites();
  const files = openHostFiles(root, writes);
  let returned = 0;
  const limit = { limitMs: 30, onLateReturn: () => (returned += 1) };
  const stuck = Array.from({ length: 64 }, () => files.writeText("unbind", "x", limit));
  const others = Array.from({ length: 300 }, () => files.writeText("bind", "0000:01:10.0", { limitMs: 600_000 }));
  const outcomes = Promise.allSettled(stuck);
  await Promise.all(others);
  await Promise.all(stuck.map((one) => assert.rejects(one, { code: "ETIMEDOUT", message: /within 30 ms/ })));
  await outcomes;
  assert.deepEqual([writes.stuckCount, returned], [64, 0]);
  await assert.rejects(files.writeText("bind", "1"), { code: "EBUSY", message: /64 earlier writes still hang/ });
  for (let turn = 0; writes.stuckCount > 0; turn += 1) {
    assert.ok(turn < 100_000, `${writes.stuckCount} writes that have returned still count as stuck`);
    pipe.drain(); // it takes some of them at a time
    await new Promise(setImmediate);
  }
  assert.equal(returned, 64);
  await files.writeText("bind", "0000:01:10.1");
  assert.equal(readFileSync(join(root, "bind"), "utf8"), "0000:01:10.1");
  assert.equal(readdirSync("/proc/self/fd").length, before);
  pipe.close();
});

test("HostFiles.writeText() does not wait for a reader that is not there", async (t) => {
  const root = folder(t);
  execFileSync("mkfifo", [join(root, "unread")]);
  await assert.rejects(openHostFiles(root, new BlockingWrites()).writeText("unread", "x"), { code: "ENXIO" });
});

test("HostFiles.writeText() says what the kernel answers to the write itself", async () => {
  await assert.rejects(openHostFiles("/dev", new BlockingWrites()).writeText("full", "x"), { code: "ENOSPC" });
});

for (const [how, end, status] of [
  ["of itself", "", 0],
  ["by process.exit()", "setTimeout(() => process.exit(7), 60);", 7],
  ["by an uncaught error", "setTimeout(() => { throw new Error('x') }, 60);", 1],
] as const) {
  test(`a process whose write hangs still ends ${how}`, (t) => {
    const root = folder(t);
    const pipe = fullPipe(join(root, "bind"));
    const program = `
      import { BlockingWrites, openHostFiles } from ${JSON.stringify(new URL("../../src/kernel/index.ts", import.meta.url).href)};
      openHostFiles(${JSON.stringify(root)}, new BlockingWrites()).writeText("bind", "x", { limitMs: 20 }).catch(() => {});
      ${end}`;
    const ended = spawnSync(process.execPath, ["--input-type=module", "-e", program], { timeout: 100_000 });
    pipe.close();
    assert.equal(ended.status, status, String(ended.stderr));
  });
}
