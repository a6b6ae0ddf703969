import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connectUnix, Fd, HELD_FDS_LIMIT, listenUnix, type UnixStream } from "../../src/kernel/index.ts";
import { until } from "../scenes/until.ts";

/** fcntl.h. */
const O_CLOEXEC = 0o2000000;

const never = new AbortController().signal;
const openFds = () => readdirSync("/proc/self/fd").length;

async function pair(t: TestContext): Promise<{ client: UnixStream; server: UnixStream; folder: string }> {
  const folder = mkdtempSync(join(tmpdir(), "fds-"));
  const accepted = Promise.withResolvers<UnixStream>();
  const listener = listenUnix(join(folder, "s.sock"), {
    mode: 0o600,
    onStream: accepted.resolve,
    onError: accepted.reject,
  });
  const client = connectUnix(join(folder, "s.sock"));
  const server = await accepted.promise;
  t.after(() => {
    client.destroy();
    server.destroy();
    listener.close();
    rmSync(folder, { recursive: true });
  });
  return { client, server, folder };
}

function makeFiles(folder: string, count: number): Fd[] {
  return Array.from({ length: count }, (_, i) => {
    writeFileSync(join(folder, `f${i}`), String(i));
    return Fd.ofPath(join(folder, `f${i}`));
  });
}

test("UnixStream carries bytes both ways and ends like any stream", async (t) => {
  const { client, server } = await pair(t);
  const big = Buffer.alloc(3_000_000, "x");
  client.end(big);
  let got = 0;
  for await (const chunk of server) got += (chunk as Buffer).length;
  assert.equal(got, big.length);
  assert.equal(server.peerPid ?? process.pid, process.pid);
});

for (const count of [1, 64, HELD_FDS_LIMIT]) {
  test(`UnixStream passes ${count} descriptors with its bytes, and nothing leaks`, async (t) => {
    const { client, server, folder } = await pair(t);
    const before = openFds();
    const files = makeFiles(folder, count);
    for (const fd of files) client.fds.send(fd);
    server.on("data", () => {});
    client.write(Buffer.alloc(count + 5));
    for (const fd of files) {
      const received = await server.fds.receive(fd.id(), never);
      assert.deepEqual(received.id(), fd.id());
      received.close();
      server.fds.release(fd.id());
    }
    assert.equal(server.fds.heldCount, 0);
    for (const fd of files) fd.close();
    assert.equal(openFds(), before);
  });
}

/** Descriptors of this process that lead to the path, and would lead there in a program that it starts. */
function inheritedTo(path: string): readonly string[] {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      const info = readFileSync(`/proc/self/fdinfo/${fd}`, "utf8");
      const [, flags = ""] = /^flags:\s+(\d+)$/m.exec(info) ?? [];
      return readlinkSync(`/proc/self/fd/${fd}`) === path && (Number.parseInt(flags, 8) & O_CLOEXEC) === 0;
    } catch {
      return false; // the descriptor of the listing itself
    }
  });
}

test("UnixStream receives descriptors that no program started later inherits", async (t) => {
  const { client, server, folder } = await pair(t);
  const [file] = makeFiles(folder, 1) as [Fd];
  client.fds.send(file);
  server.resume();
  client.write("x");
  const received = await server.fds.receive(file.id(), never);
  assert.equal(server.fds.heldCount, 1, "the stream has one of its own beside what it gives out");
  assert.deepEqual(inheritedTo(join(folder, "f0")), []);
  received.close();
  file.close();
});

test("UnixStream keeps a bounded number of descriptors that are not received", async (t) => {
  const { client, server, folder } = await pair(t);
  const before = openFds();
  const files = makeFiles(folder, 1000);
  for (const fd of files) client.fds.send(fd);
  let bytes = 0;
  const all = Promise.withResolvers<void>();
  server.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes === 1000) all.resolve();
  });
  client.write(Buffer.alloc(1000));
  await all.promise;
  assert.equal(server.fds.heldCount, HELD_FDS_LIMIT);
  assert.equal(server.fds.droppedCount, 1000 - HELD_FDS_LIMIT);
  for (const fd of files) fd.close();
  server.destroy();
  client.destroy();
  await once(server, "close");
  assert.ok(openFds() <= before, `${openFds()} descriptors open, ${before} before`);
});

test("UnixStream that was accepted ends when it is flooded with descriptors, and one that was dialled takes them all", async (t) => {
  const { client, server, folder } = await pair(t);
  const [file] = makeFiles(folder, 1) as [Fd];
  for (const end of [client, server]) {
    end.on("error", () => {});
    end.fds.holdAtMost(2);
    for (let at = 0; at < 40; at += 1) end.fds.send(file);
  }
  file.close();
  let bytes = 0;
  client.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
  });
  server.write(Buffer.alloc(40));
  await until("the dialled end has all", () => bytes === 40);
  assert.equal(client.destroyed, false);
  server.resume();
  client.write(Buffer.alloc(40));
  await until("the accepted end is closed", () => server.closed);
  assert.match(String(server.errored), /descriptors that no call names/);
});

test("PassedFds.receive() waits, is cancelled by its signal and rejected when the connection ends", async (t) => {
  const { client, server, folder } = await pair(t);
  const [file] = makeFiles(folder, 1) as [Fd];
  server.resume();
  const cancelled = new AbortController();
  const first = server.fds.receive(file.id(), cancelled.signal);
  cancelled.abort(new Error("enough"));
  await assert.rejects(first, /enough/);
  const second = server.fds.receive(file.id(), never);
  client.fds.send(file);
  client.write("x");
  (await second).close();
  const third = server.fds.receive({ dev: 1n, ino: 1n }, never);
  client.destroy();
  server.destroy();
  await assert.rejects(third, /connection was closed/);
  file.close();
});

test("UnixStream puts one byte and one descriptor in each message, as another program sees it", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "fds-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "py.sock");
  const program = `
import socket, array, os
s = socket.socket(socket.AF_UNIX); s.bind(${JSON.stringify(path)}); s.listen(); print("ready", flush=True)
c, _ = s.accept()
while True:
    data, anc, flags, _ = c.recvmsg(100, 1024)
    if not data: break
    fds = [f for _, _, d in anc for f in array.array("i", d[:len(d) - len(d) % 4])]
    print(len(data), len(fds), *[os.fstat(f).st_ino for f in fds], flush=True)
`;
  const python = spawn("python3", ["-c", program], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  python.stdout.on("data", (text: Buffer) => {
    output += text;
  });
  await once(python.stdout, "data");
  const client = connectUnix(path);
  const files = makeFiles(folder, 3);
  for (const fd of files) client.fds.send(fd);
  client.end(Buffer.alloc(10));
  await once(python, "exit");
  client.destroy();
  assert.deepEqual(output.trim().split("\n"), ["ready", ...files.map((fd) => `1 1 ${fd.id().ino}`), "7 0"]);
  for (const fd of files) fd.close();
});

test("listenUnix() replaces a dead socket file, and refuses one that is in use", async (t) => {
  const { folder } = await pair(t);
  const ignore = { mode: 0o600, onStream: (stream: UnixStream) => stream.destroy(), onError: assert.ifError };
  assert.throws(() => listenUnix(join(folder, "s.sock"), ignore), { code: "EADDRINUSE" });
  assert.throws(() => connectUnix(join(folder, "none.sock")), { code: "ENOENT" });
  assert.throws(() => connectUnix(`/${"x".repeat(120)}`), /socket path/);
});

test("three hundred connections with descriptors that come and go leave nothing open", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "fds-"));
  const path = join(folder, "s.sock");
  let serverEnds = 0;
  const listener = listenUnix(path, {
    mode: 0o600,
    onError: assert.ifError,
    onStream(stream) {
      stream.resume();
      stream.on("error", () => {});
      stream.once("close", () => {
        serverEnds += 1;
      });
    },
  });
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const files = makeFiles(folder, 3);
  const before = openFds();
  for (let i = 0; i < 300; i += 1) {
    const client = connectUnix(path);
    client.resume();
    client.on("error", () => {});
    for (const fd of files) client.fds.send(fd);
    if (i % 3 === 0) client.destroy();
    else client.end("hello");
    await once(client, "close");
  }
  const native = connect(path);
  native.end("plain");
  await once(native, "close");
  await until("the listener has seen all ends", () => serverEnds >= 301);
  assert.equal(openFds(), before);
  for (const fd of files) fd.close();
  listener.close();
});

test("five hundred connections at once, a third cut off amid their descriptors, leave nothing open", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "fds-"));
  const path = join(folder, "s.sock");
  const ends: Promise<unknown>[] = [];
  const listener = listenUnix(path, {
    mode: 0o600,
    onError: assert.ifError,
    onStream(stream) {
      stream.resume();
      stream.on("error", () => {});
      ends.push(once(stream, "close"));
    },
  });
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const files = makeFiles(folder, 3);
  const before = openFds();
  const clients: UnixStream[] = [];
  for (let i = 0; i < 500; i += 1) {
    clients.push(connectUnix(path));
    if (i % 100 === 99) await new Promise(setImmediate); // the backlog is shorter than that
  }
  const closed = clients.map(async (client, i) => {
    client.resume();
    client.on("error", () => {});
    for (const fd of files) client.fds.send(fd);
    if (i % 3 === 0) client.write(Buffer.alloc(300_000));
    else client.end("hello");
    setImmediate(() => i % 3 === 0 && client.destroy());
    await once(client, "close");
  });
  await Promise.all(closed);
  await until("the listener has accepted all connections", () => ends.length >= 500);
  await Promise.all(ends);
  assert.equal(openFds(), before);
  for (const fd of files) fd.close();
  listener.close();
});
