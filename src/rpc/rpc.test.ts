import assert from "node:assert/strict";
import { mkdtempSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { constants, createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { create, toBinary } from "@bufbuild/protobuf";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { type TestIdentity, testIdentity } from "../../test/scenes/tls-identity.ts";
import { within } from "../../test/scenes/until.ts";
import { DeadlineError, systemClock } from "../async/index.ts";
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "../gen/health_pb.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { NetworkServiceEndpointRegistry } from "../gen/registry_pb.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { silentLog } from "../telemetry/index.ts";
import { type ClientOptions, RpcClient } from "./client.ts";
import { type Call, methodPath, type RpcHandler, streamHandler, unaryHandler } from "./handler.ts";
import { RpcHealth } from "./health.ts";
import { http2Transport } from "./http2/transport.ts";
import { defaultMessageLimit } from "./message-limits.ts";
import { defaultLimits } from "./rpc-limits.ts";
import { type RpcServer, type ServeOptions, serveRpc } from "./server.ts";
import { RpcError } from "./status.ts";

const ca = createTestCa("example.org");
const log = silentLog;
const { request: Request, close: Close } = NetworkService.method;
const { find: Find } = NetworkServiceEndpointRegistry.method;

function socketUrl(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "rpc-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return `unix://${folder}/a/b/test.sock`;
}

async function serve(t: TestContext, options: Partial<ServeOptions>): Promise<RpcServer> {
  const server = await serveRpc({ url: socketUrl(t), handlers: [], log, clock: systemClock, ...options });
  t.after(() => server.stop(0));
  return server;
}

function client(t: TestContext, options: Partial<ClientOptions> = {}): RpcClient {
  const made = new RpcClient({ log, clock: systemClock, dialTimeoutMs: 60_000, idleMs: 60_000, ...options });
  t.after(() => made.close());
  return made;
}

/** The error of a call that must fail. */
function failure(call: Promise<unknown>): Promise<RpcError> {
  return call.then(
    () => assert.fail("the call worked"),
    (error: RpcError) => error,
  );
}

/** An echo of Request that shows what the handler saw. */
function echo(see: (call: Call) => void = () => {}): RpcHandler {
  return unaryHandler(Request, async ({ connection }, call) => {
    see(call);
    return { id: connection?.id ?? "", networkService: call.connection.peer?.spiffeId ?? "no peer" };
  });
}

const pair = (): { server: TestIdentity; client: TestIdentity } => ({
  server: testIdentity(ca, "spiffe://example.org/server"),
  client: testIdentity(ca, "spiffe://example.org/client"),
});

test("RpcClient.call() and serveRpc() know each other by their certificates", async (t) => {
  const ids = pair();
  const server = await serve(t, { tls: ids.server, handlers: [echo()] });
  const caller = client(t, { tls: ids.client });
  const { response, connection } = await caller.call(server.url, Request, { connection: { id: "c1" } });
  assert.deepEqual([response.id, response.networkService], ["c1", "spiffe://example.org/client"]);
  assert.equal(connection.peer?.spiffeId, "spiffe://example.org/server");
  assert.equal(server.connectionCount, 1);
});

test("RpcClient.call() sends headers and metadata, made for the peer of the connection, and gets metadata back", async (t) => {
  const ids = pair();
  const seen: unknown[] = [];
  const handler = echo((call) => {
    seen.push(call.metadata.get("nsm-client-token"), call.metadata.get("x-list"), call.deadlineMs !== undefined);
    call.setResponseMetadata("x-answer", "yes");
  });
  const server = await serve(t, { tls: ids.server, handlers: [handler] });
  const credentials: ClientOptions["credentials"] = (peer) => ({ "nsm-client-token": `for ${peer?.spiffeId}` });
  const caller = client(t, { tls: ids.client, credentials });
  const options = { metadata: { "x-list": ["1", "2"] }, timeoutMs: 60_000 };
  const { metadata } = await caller.call(server.url, Request, {}, options);
  assert.deepEqual(seen, [["for spiffe://example.org/server"], ["1", "2"], true]);
  assert.deepEqual(metadata.get("x-answer"), ["yes"]);
});

test("RpcClient.call() gets the code and the text that a handler threw", async (t) => {
  const failures = [
    new RpcError("PERMISSION_DENIED", "no — 100 % sufficient\nprivileges"),
    new DeadlineError("bind took longer"),
    new Error("boom"),
  ];
  const handler = unaryHandler(Request, async () => {
    throw failures.shift();
  });
  const server = await serve(t, { handlers: [handler] });
  const caller = client(t);
  const fail = () => failure(caller.call(server.url, Request, {})).then(({ code, message }) => [code, message]);
  assert.deepEqual(
    [await fail(), await fail(), await fail()],
    [
      ["PERMISSION_DENIED", "no — 100 % sufficient\nprivileges"],
      ["DEADLINE_EXCEEDED", "bind took longer"],
      ["UNKNOWN", "boom"],
    ],
  );
  await assert.rejects(caller.call(server.url, Close, {}), { code: "UNIMPLEMENTED" });
});

test("RpcClient.call() gives up at its deadline and aborts the handler", async (t) => {
  const reported = Promise.withResolvers<unknown>();
  const begun = Promise.withResolvers<void>();
  const handler = unaryHandler(Request, async (_request, call) => {
    begun.resolve();
    call.signal.addEventListener("abort", () => reported.resolve((call.signal.reason as RpcError).code));
    return await new Promise<never>(() => {});
  });
  const server = await serve(t, { handlers: [handler] });
  const clock = new HandClock();
  const late = assert.rejects(client(t, { clock }).call(server.url, Request, {}, { timeoutMs: 3_600_000 }), {
    code: "DEADLINE_EXCEEDED",
  });
  await begun.promise;
  await clock.pass(3_600_000);
  await late;
  assert.match(String(await reported.promise), /CANCELLED|DEADLINE_EXCEEDED/);
});

test("RpcClient.call() is cancelled by its signal, and the handler hears of it", async (t) => {
  const begun = Promise.withResolvers<Call>();
  const handler = unaryHandler(Request, async (_request, call) => {
    begun.resolve(call);
    return await new Promise<never>(() => {});
  });
  const server = await serve(t, { handlers: [handler] });
  const stop = new AbortController();
  const calling = client(t).call(server.url, Request, {}, { signal: stop.signal });
  const { signal } = await begun.promise;
  const reported = new Promise((resolve) => signal.addEventListener("abort", resolve));
  stop.abort(new Error("changed my mind"));
  await assert.rejects(calling, { code: "CANCELLED", message: "changed my mind" });
  await reported;
});

test("RpcClient.stream() reads as fast as it likes, and the handler is pulled no faster", async (t) => {
  let made = 0;
  const returned = Promise.withResolvers<void>();
  const handler = streamHandler(Find, async function* () {
    try {
      for (; made < 10_000; made++) yield { networkServiceEndpoint: { name: `nse-${made}`, url: "x".repeat(10_000) } };
    } finally {
      returned.resolve();
    }
  });
  const ids = pair();
  const server = await serve(t, { tls: ids.server, handlers: [handler, echo()] });
  const caller = client(t, { tls: ids.client });
  const names: string[] = [];
  for await (const { networkServiceEndpoint } of caller.stream(server.url, Find, {})) {
    names.push(networkServiceEndpoint?.name ?? "");
    await caller.call(server.url, Request, {}); // on the same connection: what the stream may send has been sent
    if (names.length === 5) break;
  }
  await returned.promise;
  assert.deepEqual(names, ["nse-0", "nse-1", "nse-2", "nse-3", "nse-4"]);
  assert.ok(made < 200, `${made} messages were made for 5 that were read`);
  assert.equal((await caller.call(server.url, Health.method.check, {}).catch((error) => error)).code, "UNIMPLEMENTED");
});

test("serveRpc() lets go of each message of a stream when it has left", async (t) => {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  const messages: WeakRef<Uint8Array>[] = [];
  const path = methodPath(Find);
  const handler: RpcHandler = {
    path,
    limit: defaultMessageLimit,
    kind: "stream",
    async *run(_request, { signal }) {
      for (let i = 0; i < 100; i++) {
        const message = toBinary(Find.output, create(Find.output, { networkServiceEndpoint: { name: String(i) } }));
        messages.push(new WeakRef(message));
        yield message;
      }
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    },
  };
  const server = await serve(t, { handlers: [handler] });
  let count = 0;
  for await (const _ of client(t).stream(server.url, Find, {})) {
    if (++count < 100) continue;
    await new Promise(setImmediate); // a WeakRef holds on to its target until the turn in which it was made is over
    collect();
    const kept = messages.filter((message) => message.deref() !== undefined).length;
    assert.ok(kept < 10, `${kept} of 100 messages are kept while the stream is open`);
    break;
  }
});

test("RpcClient keeps nothing of a call that is over", async (t) => {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  const find = streamHandler(Find, async function* () {
    for (;;) yield {};
  });
  const server = await serve(t, { handlers: [echo(), find] });
  const caller = client(t);
  const signals: WeakRef<AbortSignal>[] = [];
  for (let i = 0; i < 20; i++) {
    const { signal } = new AbortController();
    signals.push(new WeakRef(signal));
    if (i % 2 === 0) await caller.call(server.url, Request, {}, { signal });
    else for await (const _ of caller.stream(server.url, Find, {}, { signal })) break;
  }
  for (let turns = 0; turns < 3; turns++) await new Promise(setImmediate);
  collect();
  const kept = signals.filter((signal) => signal.deref() !== undefined).length;
  assert.ok(kept < 5, `the signals of ${kept} of 20 callers are kept`);
});

test("RpcClient.stream() gives every message and then the error", async (t) => {
  const handler = streamHandler(Find, async function* () {
    for (let i = 0; i < 100; i++) yield { networkServiceEndpoint: { name: String(i) } };
    throw new RpcError("ABORTED", "enough");
  });
  const server = await serve(t, { handlers: [handler] });
  let count = 0;
  const stream = client(t).stream(server.url, Find, {});
  const read = async () => {
    for await (const _ of stream) count++;
  };
  await assert.rejects(read(), { code: "ABORTED", message: "enough" });
  assert.equal(count, 100);
  await assert.rejects(stream.metadata, { code: "ABORTED" });
});

test("RpcClient keeps one connection per target, and calls at the same time share one dial", async (t) => {
  const server = await serve(t, { handlers: [echo()] });
  const caller = client(t);
  const answers = await Promise.all(Array.from({ length: 8 }, () => caller.call(server.url, Request, {})));
  answers.push(await caller.call(server.url, Request, {}));
  assert.equal(new Set(answers.map(({ connection }) => connection.id)).size, 1);
  assert.equal(server.connectionCount, 1);
});

test("RpcClient lets calls wait that are more than the server takes at once", async (t) => {
  let atOnce = 0;
  let most = 0;
  const full = Promise.withResolvers<void>();
  const handler = unaryHandler(Request, async () => {
    most = Math.max(most, ++atOnce);
    if (atOnce === 3) full.resolve();
    await full.promise;
    await other.call(server.url, Health.method.check, {}); // what has come with this call begins before it is over
    atOnce--;
    return {};
  });
  const server = await serve(t, { handlers: [handler], health: new RpcHealth(), limits: { maxConcurrentCalls: 3 } });
  const [caller, other] = [client(t), client(t)];
  await Promise.all(Array.from({ length: 20 }, () => caller.call(server.url, Request, {})));
  assert.equal(most, 3);
});

test("RpcClient closes a connection that is idle, and dials again", async (t) => {
  const server = await serve(t, { handlers: [echo()] });
  const caller = client(t, { idleMs: 10 });
  const { connection } = await caller.call(server.url, Request, {});
  await new Promise((resolve) => connection.closed.addEventListener("abort", resolve));
  const again = await caller.call(server.url, Request, {});
  assert.notEqual(again.connection.id, connection.id);
});

test("RpcClient leaves a connection for a new one when its certificate rotates, without ending calls", async (t) => {
  const ids = pair();
  const gate = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const handler = unaryHandler(Request, async ({ connection }) => {
    begun.resolve();
    if (connection?.id === "slow") await gate.promise;
    return {};
  });
  const server = await serve(t, { tls: ids.server, handlers: [handler] });
  const caller = client(t, { tls: ids.client });
  const slow = caller.call(server.url, Request, { connection: { id: "slow" } });
  await begun.promise;
  ids.server.rotate();
  ids.client.rotate();
  const fresh = await caller.call(server.url, Request, {});
  gate.resolve();
  const old = await slow;
  assert.notEqual(old.connection.id, fresh.connection.id);
  assert.notEqual(old.connection.peer?.certificatePem, fresh.connection.peer?.certificatePem);
});

test("RpcClient.close() ends calls with CANCELLED and forgets its identity", async (t) => {
  const ids = pair();
  const begun = Promise.withResolvers<void>();
  const stuck = unaryHandler(Request, async () => {
    begun.resolve();
    return await new Promise<never>(() => {});
  });
  const server = await serve(t, { tls: ids.server, handlers: [stuck] });
  const caller = client(t, { tls: ids.client });
  const calling = failure(caller.call(server.url, Request, {}));
  await begun.promise;
  assert.equal(ids.client.listenerCount, 1);
  await caller.close();
  assert.deepEqual([(await calling).code, (await calling).message], ["CANCELLED", "the client was closed"]);
  assert.equal(ids.client.listenerCount, 0);
  await assert.rejects(caller.call(server.url, Request, {}), { code: "CANCELLED" });
});

test("RpcClient.call() names the cause when it cannot connect", async (t) => {
  const alien = createTestCa("alien.org");
  const ids = pair();
  const server = await serve(t, { tls: ids.server, handlers: [echo()] });
  const why = (caller: RpcClient, url: string) =>
    failure(caller.call(url, Request, {})).then(({ code, message }) => `${code} ${message}`);
  const nowhere = socketUrl(t);
  assert.match(await why(client(t), nowhere), /^UNAVAILABLE Cannot connect to unix:.*ENOENT/);
  assert.match(await why(client(t), "tcp://127.0.0.1:1"), /^UNAVAILABLE Cannot connect to tcp:.*ECONNREFUSED/);
  assert.match(await why(client(t), "http://example.org"), /^INVALID_ARGUMENT|UNAVAILABLE.*want unix/);
  const foreign = testIdentity(alien, "spiffe://alien.org/x", [ca]);
  assert.match(
    await why(client(t, { tls: foreign }), server.url),
    /^UNAVAILABLE .*refused our certificate|ECONNRESET|EPIPE/,
  );
  const trusting = testIdentity(ca, "spiffe://example.org/y", [alien]);
  assert.match(
    await why(client(t, { tls: trusting }), server.url),
    /TLS handshake failed: .*issued by no authority that we trust/,
  );
  const mute = createServer().listen(0, "127.0.0.1");
  t.after(() => mute.close());
  await new Promise((resolve) => mute.once("listening", resolve));
  const sockets: { destroy(): void }[] = [];
  const clock = new HandClock();
  mute.on("connection", (socket) => {
    sockets.push(socket);
    socket.once("data", () => void clock.pass(50)); // it has come so far that it says something
  });
  const url = `tcp://127.0.0.1:${(mute.address() as { port: number }).port}`;
  assert.match(
    await why(client(t, { tls: ids.client, dialTimeoutMs: 50, clock }), url),
    /the TLS handshake took longer than 50 ms/,
  );
  assert.match(await why(client(t, { dialTimeoutMs: 50, clock }), url), /HTTP\/2 settings took longer than 50 ms/);
  for (const socket of sockets) socket.destroy();
});

test("serveRpc() makes the folder and the socket with the mode that was requested", async (t) => {
  const url = socketUrl(t);
  const server = await serve(t, { url, socketMode: 0o700 });
  const path = url.slice("unix://".length);
  assert.equal(server.url, url);
  assert.deepEqual([statSync(path).mode & 0o777, statSync(join(path, "..")).mode & 0o777], [0o700, 0o700]);
  await assert.rejects(serve(t, { url }), /another process listens there/);
  await server.stop(0);
  assert.equal(statSync(path, { throwIfNoEntry: false }), undefined);
  writeFileSync(path, "");
  await assert.rejects(serve(t, { url }), /a file that is no socket is in the way/);
  const other = socketUrl(t).slice("unix://".length);
  await serve(t, { url: `unix://${other}` });
  rmSync(path);
  symlinkSync(other, path);
  await assert.rejects(serve(t, { url }), /a file that is no socket is in the way/, "a link, whatever it leads to");
});

test("serveRpc() takes the place of a socket file without a listener, and never removes another server's", async (t) => {
  const url = socketUrl(t);
  const path = url.slice("unix://".length);
  const first = await serve(t, { url, handlers: [echo()] });
  renameSync(path, `${path}.old`);
  const second = await serve(t, { url, handlers: [echo()] });
  await first.stop(0);
  renameSync(`${path}.old`, path); // now a file without a listener, in the place of the second
  const third = await serve(t, { url, handlers: [echo()] });
  await second.stop(0);
  const { response } = await client(t).call(third.url, Request, { connection: { id: "third" } });
  assert.equal(response.id, "third");
});

test("serveRpc() serves on TCP and reports the real port", async (t) => {
  const ids = pair();
  const server = await serve(t, { url: "tcp://127.0.0.1:0", tls: ids.server, handlers: [echo()] });
  assert.match(server.url, /^tcp:\/\/127\.0\.0\.1:\d+$/);
  const { response } = await client(t, { tls: ids.client }).call(server.url, Request, { connection: { id: "t" } });
  assert.equal(response.id, "t");
});

test("a dial over TCP that is given up fails with the caller's reason", async (t) => {
  const { url: target } = await serve(t, { url: "tcp://127.0.0.1:0" });
  const reason = new Error("changed my mind");
  const about = { target, tls: undefined, limits: defaultLimits, clock: systemClock, timeoutMs: 60_000 };
  await assert.rejects(http2Transport.dial({ ...about, signal: AbortSignal.abort(reason) }), reason);
});

test("RpcServer.stop() lets unary calls end, ends streams with UNAVAILABLE and closes every connection", async (t) => {
  const gate = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const handlers = [
    unaryHandler(Request, async () => {
      begun.resolve();
      await gate.promise;
      return { id: "done" };
    }),
    streamHandler(Find, async function* (_request, call) {
      yield {};
      await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
    }),
  ];
  const server = await serve(t, { handlers });
  const caller = client(t);
  const calling = caller.call(server.url, Request, {});
  const stream = caller.stream(server.url, Find, {})[Symbol.asyncIterator]();
  await stream.next();
  await begun.promise;
  const stopped = server.stop(5000);
  setImmediate(gate.resolve);
  assert.equal((await calling).response.id, "done");
  await assert.rejects(stream.next(), { code: "UNAVAILABLE", message: "the server is stopping" });
  await stopped;
  assert.equal(server.connectionCount, 0);
});

test("RpcHealth answers Check and Watch with what serves", async (t) => {
  const health = new RpcHealth();
  const server = await serve(t, { health });
  const caller = client(t);
  const { check: Check, watch: Watch } = Health.method;
  assert.equal((await caller.call(server.url, Check, {})).response.status, ServingStatus.SERVING);
  await assert.rejects(caller.call(server.url, Check, { service: "a" }), { code: "NOT_FOUND" });
  const seen: ServingStatus[] = [];
  for await (const { status } of caller.stream(server.url, Watch, { service: "a" })) {
    seen.push(status);
    if (seen.length === 3) break;
    health.set("a", seen.length === 1);
  }
  assert.deepEqual(seen, [ServingStatus.SERVICE_UNKNOWN, ServingStatus.SERVING, ServingStatus.NOT_SERVING]);
});

test("serveRpc() leaves what RpcHealth says to its owner when it stops: another server may say the same", async (t) => {
  const health = new RpcHealth();
  const server = await serve(t, { health });
  const other = await serve(t, { health });
  await other.stop(0);
  const { response } = await client(t).call(server.url, Health.method.check, {});
  assert.equal(response.status, ServingStatus.SERVING);
});

test("serveRpc() refuses a request above its limit with RESOURCE_EXHAUSTED and continues", async (t) => {
  const server = await serve(t, { handlers: [echo()], limits: { maxMessageBytes: 1000 } });
  const caller = client(t);
  const big = { connection: { id: "x".repeat(2_000_000) } };
  await assert.rejects(caller.call(server.url, Request, big), { code: "RESOURCE_EXHAUSTED" });
  assert.equal((await caller.call(server.url, Request, { connection: { id: "a" } })).response.id, "a");
});

const large = { bytes: 16_000_000, elements: 100 };

test("RpcClient.call() gets its answer from a server that reads no further", async (t) => {
  const server = await serve(t, { handlers: [{ ...echo(), limit: large }], limits: { maxMessageBytes: large.bytes } });
  const limits = { maxMessageBytes: large.bytes };
  const id = "x".repeat(8_000_000); // more than may be in arrival
  const failed = await failure(client(t, { limits }).call(server.url, Request, { connection: { id } }));
  assert.deepEqual([failed.code, /so much at once/.test(failed.message)], ["RESOURCE_EXHAUSTED", true]);
});

const answerHeaders = { ":status": 200, "content-type": "application/grpc" };

/** Where a peer listens that answers by hand. */
async function answering(t: TestContext, answer: (stream: ServerHttp2Stream) => void): Promise<string> {
  const server = createHttp2Server().on("stream", (stream) => answer(stream.on("error", () => {})));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  return `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("RpcClient.call() gives its request up where the peer has answered before it has read all of it", async (t) => {
  const reset = Promise.withResolvers<number | undefined>();
  const url = await answering(t, (stream) => {
    stream.once("close", () => reset.resolve(stream.rstCode));
    stream.once("data", () => {
      stream.pause();
      stream.respond({ ...answerHeaders, "grpc-status": "5" }, { endStream: true });
    });
  });
  const id = "x".repeat(200_000); // more than the peer's window
  await assert.rejects(client(t).call(url, Request, { connection: { id } }), { code: "NOT_FOUND" });
  assert.equal(await within("the request has ended", reset.promise), constants.NGHTTP2_CANCEL);
});

test("RpcClient.call() goes by the trailers before the headers, and by the last of two", async (t) => {
  const url = await answering(t, (stream) => {
    stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "7", "grpc-message": ["one", "two"] }));
    stream.respond({ ...answerHeaders, "grpc-status": "5" }, { waitForTrailers: true });
    stream.resume().end();
  });
  await assert.rejects(client(t).call(url, Request, {}), { code: "PERMISSION_DENIED", message: "two" });
});

test("RpcClient.call() carries a message of many windows both ways", async (t) => {
  const ids = pair();
  const limits = {
    maxMessageBytes: large.bytes,
    arrivalBytes: { each: large.bytes, others: 2 * large.bytes, manager: 0 },
    answerBytes: { each: large.bytes, others: 2 * large.bytes, manager: 0 },
  };
  const echoed = { ...echo(), limit: large };
  const server = await serve(t, { tls: ids.server, handlers: [echoed], limits });
  const id = "é".repeat(3_000_000);
  const { response } = await client(t, { tls: ids.client, limits, answerLimit: () => large }).call(
    server.url,
    Request,
    { connection: { id } },
  );
  assert.equal(response.id.length, id.length);
});
