import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, openSync, readlinkSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { Fd, inNetns, Netns, NotANetnsError } from "../../src/kernel/index.ts";
import { needs } from "../needs.ts";

const here = () => readlinkSync("/proc/thread-self/ns/net");

test("Netns.create() makes another namespace and stays in its own", (t) => {
  if (!needs(t, "root")) return;
  const before = here();
  const made = Netns.create();
  const own = Netns.current();
  assert.equal(here(), before);
  assert.equal(made.isSame(own), false);
  assert.match(before, new RegExp(`\\[${own.id.ino}\\]`));
  assert.match(inNetns(made, here), new RegExp(`\\[${made.id.ino}\\]`));
  assert.equal(here(), before);
  made.close();
  own.close();
});

test("inNetns() comes back after an error and refuses a promise", (t) => {
  if (!needs(t, "root")) return;
  const before = here();
  const made = Netns.create();
  assert.throws(
    () =>
      inNetns(made, () => {
        throw new Error("broken");
      }),
    /broken/,
  );
  assert.throws(() => inNetns(made, async () => {}), /must be synchronous/);
  assert.equal(here(), before);
  made.close();
});

const kernelRoom = JSON.stringify(new URL("../../src/kernel/index.ts", import.meta.url).pathname);

function run(program: string): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  const options = { encoding: "utf8", timeout: 20_000 } as const;
  return spawnSync(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", "--input-type=commonjs", "-e", program],
    options,
  );
}

test("inNetns() that cannot come back ends the process at once, with a line that says so", (t) => {
  if (!needs(t, "root")) return;
  const { status, stdout, stderr } = run(`
    const { closeSync, readdirSync, readlinkSync } = require("node:fs");
    const { inNetns, Netns } = require(${kernelRoom});
    process.on("exit", () => console.log("an exit listener ran"));
    const made = Netns.create();
    const home = readlinkSync("/proc/thread-self/ns/net");
    const isOfHost = (fd) => { try { return readlinkSync("/proc/self/fd/" + fd) === home; } catch { return false; } };
    inNetns(made, () => readdirSync("/proc/self/fd").filter(isOfHost).forEach((fd) => closeSync(Number(fd))));
    console.log("continued in " + readlinkSync("/proc/thread-self/ns/net"));`);
  assert.deepEqual([status, stdout], [70, ""], stderr);
  const { level, event, exitCode, error } = JSON.parse(stderr) as Record<string, unknown>;
  assert.deepEqual([level, event, exitCode], ["error", "namespace-not-left", 70]);
  assert.match(String(error), /come back from another network namespace.*EBADF/);
});

test("inNetns() takes no other thread along, though its work is the first that needs libuv's pool", (t) => {
  if (!needs(t, "root")) return;
  const { status, stdout, stderr } = run(`
    const { access, readdirSync, readlinkSync } = require("node:fs");
    const { inNetns, Netns } = require(${kernelRoom});
    const tasks = () => readdirSync("/proc/self/task");
    const before = tasks();
    const made = Netns.create();
    inNetns(made, () => access("/", () => {}));
    const home = readlinkSync("/proc/thread-self/ns/net");
    const added = tasks().filter((task) => !before.includes(task));
    const away = tasks().filter((task) => readlinkSync("/proc/self/task/" + task + "/ns/net") !== home);
    console.log(JSON.stringify({ hadNoPool: added.length > 0, away }));`);
  assert.equal(status, 0, stderr);
  assert.deepEqual(JSON.parse(stdout), { hadNoPool: true, away: [] });
});

test("Netns.fromFd() takes an O_PATH descriptor and refuses what is no network namespace", (t) => {
  if (!needs(t, "root")) return;
  const path = Fd.ofPath("/proc/self/ns/net");
  const netns = Netns.fromFd(path);
  const own = Netns.current();
  assert.equal(netns.isSame(own), true);
  for (const handle of [path, netns, own]) handle.close();
  const fifo = join(mkdtempSync(join(tmpdir(), "netns-")), "net:[1]");
  t.after(() => rmSync(dirname(fifo), { recursive: true }));
  execFileSync("mkfifo", [fifo]);
  for (const [other, says] of [
    ["/proc/self/ns/uts", /namespace of another kind/],
    ["/dev/null", /no namespace at all/],
    ["/", /no namespace at all/],
    [fifo, /no namespace at all/],
    ["/proc/self/net", /no namespace at all/],
  ] as const) {
    const fd = Fd.ofPath(other);
    assert.throws(
      () => Netns.fromFd(fd),
      (error: Error) => error instanceof NotANetnsError && says.test(error.message),
    );
    fd.close();
  }
});

test("Netns.writeSysctl() changes the namespace and not ours", (t) => {
  if (!needs(t, "root")) return;
  const made = Netns.create();
  const own = Netns.current();
  const before = own.readSysctl("net/ipv4/ping_group_range");
  made.writeSysctl("net/ipv4/ping_group_range", "0 1234");
  assert.match(made.readSysctl("net/ipv4/ping_group_range"), /^0\s+1234$/);
  assert.equal(own.readSysctl("net/ipv4/ping_group_range"), before);
  assert.throws(() => made.readSysctl("net/../../etc/passwd"), /Cannot use/);
  made.close();
  own.close();
});

test("Fd.id() agrees with what stat says of it", () => {
  for (const path of ["/dev/null", "/proc/self/ns/net", "/", "/proc/version", "/sys/kernel"]) {
    const { dev, ino } = statSync(path, { bigint: true });
    const fd = Fd.ofPath(path);
    assert.deepEqual(fd.id(), { dev, ino });
    fd.close();
  }
});

test("Fd.close() closes once", () => {
  const fd = Fd.own(openSync("/dev/null", "r"));
  const copy = fd.dup();
  assert.deepEqual(copy.id(), fd.id());
  copy.close();
  copy.close();
  assert.throws(() => copy.number, { code: "EBADF" });
  fd.close();
  assert.equal(fd.isClosed, true);
});
