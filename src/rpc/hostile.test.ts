import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as dialHttp2 } from "node:http2";
import { createConnection, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connect as dialTls, type TLSSocket } from "node:tls";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { testIdentity } from "../../test/scenes/tls-identity.ts";
import { until, within } from "../../test/scenes/until.ts";
import { type Clock, systemClock } from "../async/index.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { silentLog } from "../telemetry/index.ts";
import { RpcClient } from "./client.ts";
import { unaryHandler } from "./handler.ts";
import { type RpcServer, type ServeOptions, serveRpc } from "./server.ts";

const ca = createTestCa("example.org");
const serverIdentity = testIdentity(ca, "spiffe://example.org/server");
const clientIdentity = testIdentity(ca, "spiffe://example.org/client");
const { request: Request } = NetworkService.method;
const never = new Promise<never>(() => {});
const HANDSHAKE_MS = 3_600_000;

/** Its timers fire by hand; a good peer has all the time of the machine. */
function handTimers(): { readonly clock: Clock; readonly hand: HandClock } {
  const hand = new HandClock();
  return { hand, clock: { ...systemClock, after: (delayMs, callback) => hand.after(delayMs, callback) } };
}

/** The time of the handshake that is under way is up. */
async function handshakeEnds(hand: HandClock): Promise<void> {
  await until("the handshake has a deadline", () => hand.timerCount > 0);
  await hand.pass(HANDSHAKE_MS);
}

const tls = { tls: serverIdentity };

async function serve(t: TestContext, options: Partial<ServeOptions>): Promise<RpcServer & { port: number }> {
  const echo = unaryHandler(Request, async ({ connection }) => ({ id: connection?.id ?? "" }));
  const base = { url: "tcp://127.0.0.1:0", handlers: [echo], log: silentLog, clock: systemClock };
  const server = await serveRpc({ ...base, ...options });
  t.after(() => server.stop(0));
  return Object.assign(server, { port: Number(server.url.split(":").at(-1)) });
}

/** A good peer still gets its answer. */
async function assertServes(t: TestContext, url: string, isTls = true): Promise<void> {
  const options = { log: silentLog, clock: systemClock, dialTimeoutMs: 60_000, idleMs: 1000 };
  const client = new RpcClient(isTls ? { ...options, tls: clientIdentity } : options);
  t.after(() => client.close());
  const { response } = await client.call(url, Request, { connection: { id: "fine" } }, { timeoutMs: 60_000 });
  assert.equal(response.id, "fine");
}

function dialRawSocket(t: TestContext, where: number | string): Promise<Socket> {
  const address = typeof where === "number" ? { port: where, host: "127.0.0.1" } : { path: where };
  const socket = createConnection(address).on("error", () => {});
  t.after(() => socket.destroy());
  return new Promise((resolve) => socket.once("connect", () => resolve(socket)));
}

function closed(socket: Socket): Promise<void> {
  socket.resume();
  if (socket.closed) return Promise.resolve();
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

async function dialTlsSocket(t: TestContext, where: number | string): Promise<TLSSocket> {
  const { certChainPem: cert, keyPem: key } = clientIdentity.credentials();
  const address = typeof where === "number" ? { port: where, host: "127.0.0.1" } : { path: where };
  const socket = dialTls({ ...address, cert, key, rejectUnauthorized: false, ALPNProtocols: ["h2"] });
  socket.on("error", () => {});
  t.after(() => socket.destroy());
  await new Promise((resolve) => socket.once("secureConnect", resolve));
  return socket;
}

const openings = [
  { says: "garbage before TLS", bytes: Buffer.from("GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(50)) },
  { says: "a TLS record that is none", bytes: Buffer.from([0x16, 3, 1, 0xff, 0xff, 1, 2, 3]) },
  { says: "nothing at all", bytes: Buffer.alloc(0) },
];
for (const { says, bytes } of openings) {
  test(`serveRpc() closes a connection that sends ${says}, and serves others`, async (t) => {
    const { clock, hand } = handTimers();
    const server = await serve(t, { ...tls, clock, limits: { handshakeTimeoutMs: HANDSHAKE_MS } });
    const socket = await dialRawSocket(t, server.port);
    socket.write(bytes);
    if (bytes.length === 0) await handshakeEnds(hand);
    await closed(socket);
    await assertServes(t, server.url);
  });
}

const settings = [
  { says: "garbage in place of HTTP/2", bytes: Buffer.from("x".repeat(1000)) },
  { says: "no HTTP/2 settings", bytes: Buffer.alloc(0) },
];
for (const { says, bytes } of settings) {
  test(`serveRpc() closes a TLS connection that sends ${says}`, async (t) => {
    const { clock, hand } = handTimers();
    const server = await serve(t, { ...tls, clock, limits: { handshakeTimeoutMs: HANDSHAKE_MS } });
    const socket = await dialTlsSocket(t, server.port);
    socket.write(bytes);
    await once(socket, "data"); // the server's own settings: it has come to HTTP/2
    if (bytes.length === 0) await handshakeEnds(hand);
    await closed(socket);
    await assertServes(t, server.url);
    assert.equal(server.connectionCount, 1);
  });
}

test("serveRpc() drops a peer that has no certificate before it reads a request", async (t) => {
  let requested = 0;
  const server = await serve(t, {
    ...tls,
    handlers: [
      unaryHandler(Request, async () => {
        requested++;
        return {};
      }),
    ],
  });
  const socket = dialTls({ port: server.port, host: "127.0.0.1", rejectUnauthorized: false, ALPNProtocols: ["h2"] });
  socket.on("error", () => {});
  const session = dialHttp2("https://localhost", { createConnection: () => socket });
  session.on("error", () => {});
  const request = session.request({ ":method": "POST", ":path": "/networkservice.NetworkService/Request" });
  request.on("error", () => {}).end(Buffer.alloc(5));
  await new Promise((resolve) => session.once("close", resolve));
  assert.equal(requested, 0);
});

test("serveRpc() drops a peer that does not offer HTTP/2", async (t) => {
  const server = await serve(t, tls);
  const { certChainPem: cert, keyPem: key } = clientIdentity.credentials();
  const socket = dialTls({ port: server.port, host: "127.0.0.1", cert, key, rejectUnauthorized: false });
  await closed(socket.on("error", () => {}));
  await assertServes(t, server.url);
});

test("serveRpc() lets the oldest handshake go for one more than it has room for", async (t) => {
  // So long that nothing but their number ends them.
  const handshakeTimeoutMs = 3_600_000;
  const server = await serve(t, { ...tls, limits: { maxHandshakes: 2, handshakeTimeoutMs } });
  const first = await dialRawSocket(t, server.port);
  const second = await dialRawSocket(t, server.port);
  await dialRawSocket(t, server.port);
  await closed(first);
  await assertServes(t, server.url); // in the place of the second
  await closed(second);
});

function socketPath(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "rpc-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, "test.sock");
}

test("serveRpc() closes a connection on a unix socket that sends nothing at all", async (t) => {
  const { clock, hand } = handTimers();
  const path = socketPath(t);
  const limits = { handshakeTimeoutMs: HANDSHAKE_MS };
  const server = await serve(t, { ...tls, url: `unix://${path}`, clock, limits });
  const socket = await dialRawSocket(t, path);
  await handshakeEnds(hand);
  await within("the connection is closed", closed(socket));
  await assertServes(t, server.url);
});

test("serveRpc() lets a handshake go that has said nothing before an older one that speaks", async (t) => {
  const path = socketPath(t);
  const limits = { maxHandshakes: 2, handshakeTimeoutMs: HANDSHAKE_MS };
  await serve(t, { ...tls, url: `unix://${path}`, limits });
  const speaking = await dialTlsSocket(t, path);
  await once(speaking, "data"); // the server's settings: its own have not come
  const silent = await dialRawSocket(t, path);
  await dialRawSocket(t, path);
  const gone = Promise.race([closed(silent).then(() => "silent"), closed(speaking).then(() => "speaking")]);
  assert.equal(await within("one is let go", gone), "silent");
});

test("serveRpc() survives a peer that goes away in the middle of its requests", async (t) => {
  const begun: AbortSignal[] = [];
  const stuck = unaryHandler(NetworkService.method.close, async (_request, call) => {
    begun.push(call.signal);
    return await never;
  });
  const echo = unaryHandler(Request, async ({ connection }) => ({ id: connection?.id ?? "" }));
  const server = await serve(t, { ...tls, handlers: [stuck, echo] });
  const socket = await dialTlsSocket(t, server.port);
  const session = dialHttp2("https://localhost", { createConnection: () => socket });
  session.on("error", () => {});
  for (let i = 0; i < 10; i++) {
    const headers = {
      ":method": "POST",
      ":path": "/networkservice.NetworkService/Close",
      "content-type": "application/grpc",
    };
    const request = session.request(headers).on("error", () => {});
    request.end(Buffer.alloc(5));
  }
  await until("all ten requests have begun", () => begun.length >= 10);
  socket.destroy();
  await until("the requests of the peer that has gone are aborted", () => begun.every(({ aborted }) => aborted));
  await assertServes(t, server.url);
  assert.equal(server.connectionCount, 1);
});

const requests = [
  { says: "another method than POST", headers: { ":method": "GET" }, status: "405" },
  { says: "another content type", headers: { "content-type": "text/plain" }, status: "415" },
  { says: "a compressed request", headers: { "grpc-encoding": "gzip" }, status: "200 12" },
  { says: "an odd timeout", headers: { "grpc-timeout": "soon" }, status: "200 13" },
  { says: "no message", headers: {}, body: Buffer.alloc(0), status: "200 13" },
  { says: "half a message", headers: {}, body: Buffer.from([0, 0, 0, 0, 9, 1]), status: "200 13" },
  { says: "two messages", headers: {}, body: Buffer.alloc(10), status: "200 12" },
  { says: "a message that is no protobuf", headers: {}, body: Buffer.from([0, 0, 0, 0, 1, 255]), status: "200 13" },
  { says: "a compressed message", headers: {}, body: Buffer.from([1, 0, 0, 0, 0]), status: "200 12" },
  { says: "a message longer than allowed", headers: {}, body: Buffer.from([0, 255, 0, 0, 0]), status: "200 8" },
  { says: "an authority as Go sends it for unix", headers: { ":authority": "%2Frun%2Fa.sock" }, status: "200 0" },
  { says: "an authority that is no URL", headers: { ":authority": "unix:%2F%2F[" }, status: "200 0" },
  { says: "a content type with a suffix", headers: { "content-type": "application/grpc+proto" }, status: "200 0" },
  { says: "an unknown method", headers: { ":path": "/a.B/C" }, status: "200 12" },
  { says: "no service at all", headers: { ":path": "/" }, status: "200 12" },
];
for (const { says, headers, body, status } of requests) {
  test(`serveRpc() answers ${says} with ${status}`, async (t) => {
    const server = await serve(t, {});
    const session = dialHttp2(`http://127.0.0.1:${server.port}`);
    t.after(() => session.destroy());
    const request = session.request({
      ":method": "POST",
      ":path": "/networkservice.NetworkService/Request",
      "content-type": "application/grpc",
      ...headers,
    });
    let seen = "";
    request.on("response", (fields) => {
      seen = [fields[":status"], status.length > 3 ? fields["grpc-status"] : undefined].filter(Boolean).join(" ");
    });
    request.on("trailers", (fields) => {
      seen += ` ${fields["grpc-status"]}`;
    });
    request.on("error", () => {}).resume();
    request.end(body ?? Buffer.alloc(5));
    await new Promise((resolve) => request.once("close", resolve));
    assert.equal(seen, status);
    await assertServes(t, server.url, false);
  });
}

test("serveRpc() stops a caller that is still sending after its answer", async (t) => {
  const server = await serve(t, {});
  const session = dialHttp2(`http://127.0.0.1:${server.port}`);
  t.after(() => session.destroy());
  const headers = { ":method": "POST", ":path": "/a.B/C", "content-type": "application/grpc" };
  const request = session.request(headers, { endStream: false });
  request.write(Buffer.alloc(5));
  const over = once(request.resume(), "close");
  await within("the call is over, though its request is not", over);
  assert.equal(request.rstCode, 0);
});
