import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { type TestContext, test } from "node:test";
import { connectUnix, listenUnix, type UnixStream } from "../../src/kernel/index.ts";
import { needs } from "../needs.ts";
import { until } from "../scenes/until.ts";

const never = new AbortController().signal;
const openFds = () => readdirSync("/proc/self/fd").length;
const turn = () => new Promise((resolve) => setImmediate(resolve));

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "hostile-"));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** Runs a Python program whose `s` is a socket connected to us. */
async function pythonPeer(t: TestContext, program: string): Promise<{ stream: UnixStream; python: ChildProcess }> {
  const path = join(folder(t), "s.sock");
  const accepted = Promise.withResolvers<UnixStream>();
  const listener = listenUnix(path, { mode: 0o600, onStream: accepted.resolve, onError: accepted.reject });
  const head = `import socket, array, os, sys, time\ns = socket.socket(socket.AF_UNIX); s.connect(${JSON.stringify(path)})\n`;
  const python = spawn("python3", ["-c", head + program], { stdio: ["pipe", "pipe", "inherit"] });
  const stream = await accepted.promise;
  t.after(() => {
    stream.destroy();
    listener.close();
    python.kill();
  });
  stream.on("error", () => {});
  return { stream, python };
}

/** The next line that the program prints; it may come in several pieces. */
async function nextLine(python: ChildProcess): Promise<string> {
  let text = "";
  for await (const piece of (python.stdout as Readable).iterator({ destroyOnReturn: false })) {
    text += String(piece);
    if (text.endsWith("\n")) break;
  }
  return text.trim();
}

const sendMany = (count: number) => `
files = [os.memfd_create("f%d" % i) for i in range(${count})]
s.sendmsg([b"x" * 10], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
print(os.fstat(files[0]).st_dev, *[os.fstat(f).st_ino for f in files], flush=True)
sys.stdin.read()
`;

test("UnixStream takes 253 descriptors of one message, the most that the kernel lets through", async (t) => {
  const { stream, python } = await pythonPeer(t, sendMany(253));
  const before = openFds();
  stream.resume();
  const [dev = "", ...inodes] = (await nextLine(python)).split(" ");
  await until("all 253 descriptors have come", () => stream.fds.heldCount >= 253);
  for (const ino of inodes) {
    const received = await stream.fds.receive({ dev: BigInt(dev), ino: BigInt(ino) }, never);
    received.close();
  }
  stream.destroy();
  await once(stream, "close");
  assert.ok(openFds() < before);
});

test("UnixStream keeps the bytes when descriptors do not fit, and rejects who waits for one", async (t) => {
  if (!needs(t, "root")) return;
  // The peer lowers our own limit for a moment: three more descriptors and no more.
  const { stream, python } = await pythonPeer(
    t,
    `
import resource
used = {int(n) for n in os.listdir("/proc/%d/fd" % os.getppid())}
fourth = [n for n in range(1000) if n not in used][3]
old = resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)
resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (fourth, old[1]))
files = [os.memfd_create("f%d" % i) for i in range(60)]
s.sendmsg([b"x" * 10], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
s.recv(1)
resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, old)
print("restored", flush=True)
`,
  );
  const waiting = stream.fds.receive({ dev: 1n, ino: 1n }, never);
  const bytes = once(stream, "data") as Promise<[Buffer]>;
  await assert.rejects(waiting, { name: "KernelError", code: "EMFILE" });
  assert.equal((await bytes)[0].length, 10);
  assert.equal(stream.fds.droppedCount, 1);
  assert.ok(stream.fds.heldCount < 60);
  stream.write("k");
  assert.equal(await nextLine(python), "restored");
});

/** A folder of /proc whose process has died: open, and not even fstat(2) answers. */
const deadDescriptor = `
import subprocess
child = subprocess.Popen(["sleep", "60"])
dead = os.open("/proc/%d/fd" % child.pid, os.O_RDONLY | os.O_DIRECTORY)
child.kill(); child.wait()
`;

test("UnixStream keeps bytes and later descriptors when one cannot be read, and rejects who waits for one", async (t) => {
  const { stream, python } = await pythonPeer(
    t,
    `${deadDescriptor}
good = os.memfd_create("good")
pass_on = lambda fd: s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
sys.stdin.readline()
pass_on(dead)
sys.stdin.readline()
pass_on(good)
print(os.fstat(good).st_dev, os.fstat(good).st_ino, flush=True)
sys.stdin.read()
`,
  );
  const before = openFds();
  let bytes = 0;
  stream.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
  });
  const refused = assert.rejects(stream.fds.receive({ dev: 1n, ino: 1n }, never), { code: "ENOENT" });
  python.stdin?.write("\n");
  await refused;
  assert.deepEqual([stream.fds.heldCount, stream.fds.droppedCount, openFds()], [0, 1, before]);
  python.stdin?.write("\n");
  const [dev = "", ino = ""] = (await nextLine(python)).split(" ");
  (await stream.fds.receive({ dev: BigInt(dev), ino: BigInt(ino) }, never)).close();
  assert.equal(bytes, 2);
});

test("listenUnix() rests while descriptors have run out, and takes the connection later", async (t) => {
  if (!needs(t, "root")) return;
  const path = join(folder(t), "s.sock");
  const errors: string[] = [];
  const accepted = Promise.withResolvers<UnixStream>();
  const listener = listenUnix(path, {
    mode: 0o600,
    onStream: accepted.resolve,
    onError: (error) => errors.push(error.code),
  });
  const program = `
import resource, socket, os, sys
s = socket.socket(socket.AF_UNIX)
old = resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)
resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, old[1]))
s.connect(${JSON.stringify(path)})
sys.stdin.readline()
resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, old)
s.recv(1)
`;
  const python = spawn("python3", ["-c", program], { stdio: ["pipe", "ignore", "inherit"] });
  await until("the listener runs out of descriptors", () => errors.length > 0);
  // A listener that does not rest would try again in each of these turns.
  for (let turns = 0; turns < 1000; turns += 1) await turn();
  assert.ok(errors.length < 100, `${errors.length} tries in a thousand turns`);
  await until("the listener tries again", () => errors.length >= 2);
  python.stdin?.write("\n");
  const stream = await accepted.promise;
  assert.deepEqual([...new Set(errors)], ["EMFILE"]);
  stream.destroy();
  listener.close();
  await once(python, "exit");
});

test("UnixStream does not hold more than its mark for a peer that never reads, and ends at once", async (t) => {
  const { stream } = await pythonPeer(t, "time.sleep(60)\n");
  const chunk = Buffer.alloc(1024 * 1024);
  let failed = 0;
  let accepted = 0;
  const countFailure = (error?: Error | null) => {
    if (error) failed += 1;
  };
  while (accepted < 64 && stream.write(chunk, countFailure)) accepted += 1;
  assert.ok(stream.writableNeedDrain);
  for (let i = 0; i < 200; i += 1) stream.write("small", countFailure);
  stream.destroy();
  await once(stream, "close");
  assert.equal(failed, 201);
});

test("UnixStream sends many small pieces and big ones whole and in order to a late reader", async (t) => {
  const { stream, python } = await pythonPeer(
    t,
    `
import hashlib
time.sleep(0.2); h = hashlib.sha256(); n = 0
while True:
    b = s.recv(100000)
    if not b: break
    h.update(b); n += len(b)
print(n, h.hexdigest())
`,
  );
  const hash = createHash("sha256");
  let total = 0;
  for (let i = 0; i < 3000; i += 1) {
    const piece = Buffer.alloc(i % 100 === 0 ? 200_000 : i % 7, i);
    hash.update(piece);
    total += piece.length;
    stream.write(piece);
  }
  stream.resume();
  stream.end();
  assert.equal(await nextLine(python), `${total} ${hash.digest("hex")}`);
});

test("UnixStream outlives a peer that is killed amid a message", async (t) => {
  const { stream, python } = await pythonPeer(t, `s.send(b"half")\nos.kill(os.getpid(), 9)\n`);
  stream.resume();
  const waiting = assert.rejects(stream.fds.receive({ dev: 1n, ino: 2n }, never));
  await Promise.all([once(stream, "close"), once(python, "exit")]);
  await waiting;
});

test("listenUnix() leaves a file alone that is no socket, and the socket of the program that took its name", async (t) => {
  const path = join(folder(t), "s.sock");
  const options = { mode: 0o600, onStream: (stream: UnixStream) => stream.destroy(), onError: assert.ifError };
  writeFileSync(path, "precious");
  assert.throws(() => listenUnix(path, options), { code: "EADDRINUSE" });
  rmSync(path);
  const first = listenUnix(path, options);
  rmSync(path);
  const second = listenUnix(path, options);
  first.close();
  const client = connectUnix(path);
  client.destroy();
  second.close();
  assert.throws(() => connectUnix(path), { code: "ENOENT" });
});
