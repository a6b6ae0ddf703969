import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { testIdentity } from "../../test/scenes/tls-identity.ts";
import { systemClock } from "../async/index.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { connectUnix, Fd, fileKey, type PassedFds, UNKNOWN_PEER_FDS_LIMIT } from "../kernel/index.ts";
import { silentLog } from "../telemetry/index.ts";
import { RpcClient } from "./client.ts";
import { methodPath, type RpcHandler, unaryHandler } from "./handler.ts";
import { connectTls } from "./http2/tls.ts";
import { serveRpc } from "./server.ts";
import { RpcError } from "./status.ts";

const never = new AbortController().signal;
const ca = createTestCa("example.org");
const { request: Request } = NetworkService.method;

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), "rpc-"));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

async function pair(t: TestContext, url: string, handler: RpcHandler) {
  const options = { log: silentLog, clock: systemClock };
  const tls = testIdentity(ca, "spiffe://example.org/server");
  const server = await serveRpc({ ...options, url, tls, handlers: [handler] });
  const client = new RpcClient({
    ...options,
    tls: testIdentity(ca, "spiffe://example.org/client"),
    dialTimeoutMs: 60_000,
    idleMs: 60_000,
  });
  t.after(() => Promise.all([client.close(), server.stop(0)]));
  return { client, server };
}

/** Descriptors of new files. */
function openFiles(t: TestContext, count: number): Fd[] {
  const where = folder(t);
  const fds = Array.from({ length: count }, (_, i) => {
    writeFileSync(join(where, String(i)), "");
    return Fd.ofPath(join(where, String(i)));
  });
  t.after(() => fds.forEach((fd) => void fd.close()));
  return fds;
}

test("RpcClient.call() sends descriptors below TLS, before the handler begins", async (t) => {
  const held: number[] = [];
  const handler = unaryHandler(Request, async (request, call) => {
    held.push(call.connection.fds?.heldCount ?? 0);
    const ids = request.mechanismPreferences.map(({ type }) => type.split("/").map(BigInt));
    for (const [dev = 0n, ino = 0n] of ids) {
      const fd = await received(call.connection.fds).receive({ dev, ino }, call.signal);
      assert.equal(fileKey(fd.id()), `${dev}/${ino}`);
      fd.close();
    }
    return {};
  });
  const { client, server } = await pair(t, `unix://${folder(t)}/a.sock`, handler);
  const fds = openFiles(t, 70);
  const mechanismPreferences = fds.map((fd) => ({ type: fileKey(fd.id()) }));
  await client.call(server.url, Request, { mechanismPreferences }, { fds });
  await client.call(server.url, Request, { mechanismPreferences }, { fds: fds.slice(0, 1) });
  assert.deepEqual(held, [70, 70]);
});

test("serveRpc() keeps few descriptors of a peer that it does not know yet", async (t) => {
  const seen: (readonly [number, number])[] = [];
  const handler = unaryHandler(Request, async (_request, { connection: { fds } }) => {
    seen.push([fds?.heldCount ?? 0, fds?.droppedCount ?? 0]);
    return {};
  });
  const { server } = await pair(t, `unix://${folder(t)}/a.sock`, handler);
  const stream = connectUnix(server.url.slice("unix://".length));
  for (const fd of openFiles(t, 4 * UNKNOWN_PEER_FDS_LIMIT)) stream.fds.send(fd); // they leave with the first bytes of TLS
  const identity = testIdentity(ca, "spiffe://example.org/client");
  const { socket } = await connectTls(stream, identity, never);
  const session = connectHttp2("http://localhost", { createConnection: () => socket });
  t.after(() => session.destroy());
  const headers = { ":method": "POST", ":path": methodPath(Request), "content-type": "application/grpc" };
  const call = session.request(headers).end(Buffer.alloc(5)).resume();
  await once(call, "close");
  assert.deepEqual(seen, [[UNKNOWN_PEER_FDS_LIMIT, 3 * UNKNOWN_PEER_FDS_LIMIT]]);
});

test("serveRpc() ends a connection that passes more descriptors than any call names, before its handshake", async (t) => {
  const { server, client } = await pair(
    t,
    `unix://${folder(t)}/a.sock`,
    unaryHandler(Request, async () => ({})),
  );
  const stream = connectUnix(server.url.slice("unix://".length));
  const ended = new Promise((resolve) => stream.once("close", resolve));
  stream.on("error", () => {});
  for (const fd of openFiles(t, 4 * UNKNOWN_PEER_FDS_LIMIT + 1)) stream.fds.send(fd);
  stream.write(Buffer.alloc(64, 22)); // a record that is never whole
  stream.resume();
  await ended;
  await client.call(server.url, Request, {});
});

test("Call.sendFd() brings a descriptor to the caller with the answer", async (t) => {
  const [sent] = openFiles(t, 1);
  assert.ok(sent !== undefined);
  const handler = unaryHandler(Request, async (_request, call) => {
    call.sendFd(sent);
    return {};
  });
  const { client, server } = await pair(t, `unix://${folder(t)}/a.sock`, handler);
  const { connection } = await client.call(server.url, Request, {});
  const got = await received(connection.fds).receive(sent.id(), never);
  assert.equal(fileKey(got.id()), fileKey(sent.id()));
  got.close();
});

test("RpcClient reaches a socket by the descriptor of its file, and never mistakes a number used again", async (t) => {
  const where = folder(t);
  const named = (name: string) => unaryHandler(Request, async () => ({ id: name }));
  const { client, server } = await pair(t, `unix://${where}/a.sock`, named("a"));
  const other = await pair(t, `unix://${where}/b.sock`, named("b"));
  const first = Fd.ofPath(server.url.slice("unix://".length));
  const target = `unix:///proc/self/fd/${first.number}`;
  const { response, connection } = await client.call(target, Request, {});
  const direct = await client.call(server.url, Request, {});
  const number = first.number;
  first.close();
  const second = Fd.ofPath(other.server.url.slice("unix://".length));
  t.after(() => second.close());
  assert.equal(second.number, number); // the kernel gives the lowest free number
  const again = await client.call(target, Request, {});
  assert.deepEqual([response.id, direct.connection.id, again.response.id], ["a", connection.id, "b"]);
});

test("Connection.closed reports a peer that is gone, and its descriptors are let go", async (t) => {
  const open = new Set<number>();
  Fd.trace = (what, fd) => void (what === "own" ? open.add(fd) : open.delete(fd));
  t.after(() => {
    Fd.trace = undefined;
  });
  const { client, server } = await pair(
    t,
    `unix://${folder(t)}/a.sock`,
    unaryHandler(Request, async () => ({})),
  );
  const fds = openFiles(t, 3);
  const { connection } = await client.call(server.url, Request, {}, { fds });
  const waiting = received(connection.fds).receive({ dev: 1n, ino: 1n }, never);
  const reported = new Promise((resolve) =>
    connection.closed.addEventListener("abort", () => resolve(connection.closed.reason)),
  );
  await Promise.all([server.stop(0), assert.rejects(waiting)]);
  const reason = await reported;
  assert.ok(reason instanceof RpcError && reason.code === "UNAVAILABLE");
  await new Promise(setImmediate);
  for (const fd of fds) fd.close();
  assert.deepEqual([...open], []);
});

function received(fds: PassedFds | undefined): PassedFds {
  assert.ok(fds !== undefined);
  return fds;
}
