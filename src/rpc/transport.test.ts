// What calls may count on, whatever carries them: the same stories over HTTP/2 on a unix socket and in memory, there in several orders.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { type TestIdentity, testIdentity } from "../../test/scenes/tls-identity.ts";
import { within } from "../../test/scenes/until.ts";
import { type Clock, systemClock } from "../async/index.ts";
import { seededRandom } from "../async/testing/seeded-random.ts";
import { VirtualClock } from "../async/testing/virtual-clock.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { NetworkServiceEndpointRegistry } from "../gen/registry_pb.ts";
import { Fd, fileKey } from "../kernel/index.ts";
import { silentLog as log } from "../telemetry/index.ts";
import { type ClientOptions, RpcClient } from "./client.ts";
import { type Call, type RpcHandler, streamHandler, unaryHandler } from "./handler.ts";
import { http2Transport } from "./http2/transport.ts";
import { type ServeOptions, serveRpc } from "./server.ts";
import { NotBegun, RpcError } from "./status.ts";
import { MemoryTransport } from "./testing/memory-transport.ts";
import type { Transport, TransportConnection } from "./transport.ts";

const ca = createTestCa("example.org");
const { request: Request, close: Close } = NetworkService.method;
const { find: Find } = NetworkServiceEndpointRegistry.method;
const never = new AbortController().signal;

interface Ground {
  readonly transport: Transport;
  readonly clock: Clock;
}
const grounds: Readonly<Record<string, () => Ground>> = {
  "over HTTP/2": () => ({ transport: http2Transport, clock: systemClock }),
  ...Object.fromEntries([1, 2, 3, 4, 5].map((seed) => [`in memory, seed ${seed}`, () => inMemory(seed)])),
};

function inMemory(seed: number): Ground {
  const clock = new VirtualClock();
  return { clock, transport: new MemoryTransport({ clock, random: seededRandom(seed), longestMs: 10 }) };
}

interface Pair {
  readonly url: string;
  readonly server: Awaited<ReturnType<typeof serveRpc>>;
  readonly client: RpcClient;
  /** The connections as their transport has them, at either end. */
  readonly ends: { readonly client: TransportConnection[]; readonly server: TransportConnection[] };
}

/** A server and a client of it. */
async function pair(
  t: TestContext,
  { transport, clock }: Ground,
  handlers: readonly RpcHandler[],
  options: { server?: Partial<ServeOptions>; client?: Partial<ClientOptions> } = {},
): Promise<Pair> {
  const url = `unix://${folder(t)}/test.sock`;
  const ends: Pair["ends"] = { client: [], server: [] };
  const seen: Transport = {
    identify: (target) => transport.identify(target),
    listen: (listening) =>
      transport.listen({
        ...listening,
        connected(connection) {
          ends.server.push(connection);
          return listening.connected(connection);
        },
      }),
    async dial(dialling) {
      const connection = await transport.dial(dialling);
      ends.client.push(connection);
      return connection;
    },
  };
  const common = { log, clock, transport: seen };
  const server = await serveRpc({ ...common, url, handlers, ...options.server });
  const client = new RpcClient({ ...common, dialTimeoutMs: 60_000, idleMs: 60_000, ...options.client });
  t.after(() => Promise.all([client.close(), server.stop(0)]));
  return { url, server, client, ends };
}

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), "rpc-"));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

function identities(): { server: { tls: TestIdentity }; client: { tls: TestIdentity } } {
  return {
    server: { tls: testIdentity(ca, "spiffe://example.org/server") },
    client: { tls: testIdentity(ca, "spiffe://example.org/client") },
  };
}

/** Answers with the id that it was sent and with who sent it. */
function echo(see: (call: Call) => void = () => {}): RpcHandler {
  return unaryHandler(Request, async ({ connection }, call) => {
    see(call);
    return { id: connection?.id ?? "", networkService: call.connection.peer?.spiffeId ?? "no peer" };
  });
}

/** Its calls never end by themselves. */
function stuck(): { handler: RpcHandler; begun: Promise<Call> } {
  const begun = Promise.withResolvers<Call>();
  const handler = unaryHandler(Request, (_request, call) => {
    begun.resolve(call);
    return new Promise<never>(() => {});
  });
  return { handler, begun: begun.promise };
}

function aborted(signal: AbortSignal): Promise<string> {
  const code = () => (signal.reason as RpcError).code;
  if (signal.aborted) return Promise.resolve(code());
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(code())));
}

const codeOf = (call: Promise<unknown>) =>
  call.then(
    () => "OK",
    ({ code }: RpcError) => code,
  );

type Story = (t: TestContext, at: Ground) => Promise<void>;

const loseAt =
  (end: "client" | "server"): Story =>
  async (t, at) => {
    const { handler, begun } = stuck();
    const { client, url, ends, server } = await pair(t, at, [handler, streamOfOne()]);
    const stream = client.stream(url, Find, {})[Symbol.asyncIterator]();
    await stream.next();
    const code = codeOf(client.call(url, Request, {}));
    const { signal, connection } = await begun;
    assert.equal(ends[end].length, 1);
    ends[end][0]?.cut();
    assert.equal(await code, "UNAVAILABLE");
    // HTTP/2 may say before the loss that an answer has ended which had begun, and not why.
    assert.match(await codeOf(stream.next()), end === "client" ? /^UNAVAILABLE$/ : /^(UNAVAILABLE|INTERNAL)$/);
    assert.equal(await aborted(signal), "CANCELLED");
    assert.equal(await aborted(connection.closed), "UNAVAILABLE");
    await client.stream(url, Find, {})[Symbol.asyncIterator]().next(); // over a new connection
    assert.deepEqual([ends.client.length, server.connectionCount], [2, 1]);
  };

const renewAt =
  (who: "client" | "server"): Story =>
  async (t, at) => {
    const gate = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const slow = unaryHandler(Close, async () => {
      begun.resolve();
      await gate.promise;
      return {};
    });
    const ids = identities();
    const { client, url, ends } = await pair(t, at, [echo(), slow], ids);
    const underWay = client.call(url, Close, {});
    await begun.promise;
    ids[who].tls.rotate();
    if (who === "server") await aborted(ends.client[0]?.farewell ?? never).catch(() => {});
    const { connection } = await client.call(url, Request, {});
    gate.resolve();
    assert.notEqual((await underWay).connection.id, connection.id);
    assert.equal(ends.client.length, 2);
  };

const stories: Readonly<Record<string, Story>> = {
  "is answered, by the handler of its method": async (t, at) => {
    const { client, url, server } = await pair(t, at, [echo()]);
    const { response, connection } = await client.call(url, Request, { connection: { id: "c1" } });
    assert.deepEqual([response.id, response.networkService, connection.peer], ["c1", "no peer", undefined]);
    await assert.rejects(client.call(url, Close, {}), { code: "UNIMPLEMENTED" });
    assert.equal(server.connectionCount, 1);
  },

  "is not answered where no server listens, or another one does already": async (t, at) => {
    const { client, url, server } = await pair(t, at, [echo()]);
    await assert.rejects(client.call(`${url}.other`, Request, {}), {
      code: "UNAVAILABLE",
      message: /^Cannot connect/,
    });
    await server.stop(0);
    await assert.rejects(client.call(url, Request, {}), { code: "UNAVAILABLE", message: /^Cannot connect/ });
  },

  "knows the peer by its certificate, at both ends": async (t, at) => {
    const { client, url } = await pair(t, at, [echo()], identities());
    const { response, connection } = await client.call(url, Request, {});
    assert.equal(response.networkService, "spiffe://example.org/client");
    assert.equal(connection.peer?.spiffeId, "spiffe://example.org/server");
    assert.match(connection.shown?.certChainPem ?? "", /BEGIN CERTIFICATE/);
  },

  "does not begin where one end does not trust the other": async (t, at) => {
    const { server, client } = identities();
    const foreign = { tls: testIdentity(createTestCa("example.org"), "spiffe://example.org/client", [ca]) };
    for (const options of [
      { server, client: foreign },
      { server: foreign, client },
      { server, client: {} },
    ]) {
      const made = await pair(t, at, [echo(() => assert.fail("the call began"))], options);
      await assert.rejects(made.client.call(made.url, Request, {}), { code: "UNAVAILABLE" });
    }
  },

  "carries metadata both ways, made for the peer": async (t, at) => {
    const seen: unknown[] = [];
    const handler = echo((call) => {
      seen.push(call.metadata.get("token"), call.metadata.get("x-list"), call.metadata.get("grpc-timeout"));
      call.setResponseMetadata("x-answer", "1");
      call.setResponseMetadata("x-answer", "2");
    });
    const ids = identities();
    const credentials: ClientOptions["credentials"] = (peer) => ({ Token: `for ${peer?.spiffeId}` });
    const { client, url } = await pair(t, at, [handler], { ...ids, client: { ...ids.client, credentials } });
    const { metadata } = await client.call(url, Request, {}, { metadata: { "x-list": ["1", "2"] }, timeoutMs: 60_000 });
    assert.deepEqual(seen, [["for spiffe://example.org/server"], ["1", "2"], undefined]);
    assert.deepEqual(metadata.get("x-answer"), ["1", "2"]);
    await assert.rejects(client.call(url, Request, {}, { metadata: { "x-bad": "a\nb" } }), { code: "INTERNAL" });
  },

  "carries the code and the text of what the handler throws": async (t, at) => {
    const failures = [new RpcError("PERMISSION_DENIED", "no — 100 % sufficient\nprivileges"), new Error("boom")];
    const handler = unaryHandler(Request, async () => {
      throw failures.shift();
    });
    const { client, url } = await pair(t, at, [handler]);
    const call = () => client.call(url, Request, {});
    await assert.rejects(call(), { code: "PERMISSION_DENIED", message: "no — 100 % sufficient\nprivileges" });
    await assert.rejects(call(), { code: "UNKNOWN", message: "boom" });
  },

  "ends at its deadline, at both ends": async (t, at) => {
    for (let timeoutMs = 300; ; timeoutMs *= 2) {
      const { handler, begun } = stuck();
      const { client, url } = await pair(t, at, [handler]);
      const code = codeOf(client.call(url, Request, {}, { timeoutMs }));
      const call = await Promise.race([begun, code]);
      if (typeof call === "string" && timeoutMs < 10_000) continue; // The connection took as long.
      assert.ok(typeof call === "object", `the handler was not called: ${String(call)}`);
      const { deadlineMs = 0, signal } = call;
      assert.ok(deadlineMs > 0 && deadlineMs <= timeoutMs, `the handler has ${deadlineMs} ms`);
      assert.equal(await code, "DEADLINE_EXCEEDED");
      assert.match(await aborted(signal), /DEADLINE_EXCEEDED|CANCELLED/);
      return;
    }
  },

  "is cancelled by its caller, and the handler hears of it": async (t, at) => {
    const { handler, begun } = stuck();
    const { client, url, server } = await pair(t, at, [handler]);
    const stop = new AbortController();
    const call = client.call(url, Request, {}, { signal: stop.signal });
    const { signal } = await begun;
    stop.abort(new Error("changed my mind"));
    await assert.rejects(call, { code: "CANCELLED", message: "changed my mind" });
    assert.equal(await aborted(signal), "CANCELLED");
    assert.equal(server.connectionCount, 1);
  },

  "is taken up to the limits of its method and its owner, and no further": async (t, at) => {
    const { handler, begun } = stuck();
    const small = unaryHandler(Close, async () => ({}), { bytes: 1000, elements: 20 });
    const limits = { calls: { each: 1, others: 1, manager: 0 } };
    const { client, url } = await pair(t, at, [handler, small], { server: { limits } });
    // On one connection they would wait.
    const other = new RpcClient({ log, ...at, dialTimeoutMs: 60_000, idleMs: 60_000 });
    t.after(() => other.close());
    const close = (request: Parameters<typeof client.call>[2]) => codeOf(other.call(url, Close, request));
    assert.equal(await close({ id: "x".repeat(900) }), "OK");
    assert.equal(await close({ id: "x".repeat(1000) }), "RESOURCE_EXHAUSTED");
    assert.equal(await close({ path: { pathSegments: Array.from({ length: 30 }, () => ({})) } }), "RESOURCE_EXHAUSTED");
    const stop = new AbortController();
    const first = codeOf(client.call(url, Request, {}, { signal: stop.signal }));
    await begun;
    // Nor does a call that was refused make room for the next.
    for (let calls = 0; calls < 3; calls++) assert.equal(await close({}), "RESOURCE_EXHAUSTED");
    stop.abort();
    assert.equal(await first, "CANCELLED");
  },

  "does not begin where there is no room for its connection, which is closed": async (t, at) => {
    const { handler, begun } = stuck();
    const closing = unaryHandler(Close, async () => ({}));
    const connections = { each: 1, others: 1, manager: 0 };
    const made = await pair(t, at, [handler, closing], { server: { limits: { connections } } });
    const first = codeOf(made.client.call(made.url, Request, {}));
    await begun;
    const other = new RpcClient({ log, ...at, dialTimeoutMs: 60_000, idleMs: 60_000 });
    t.after(() => other.close());
    assert.equal(await codeOf(other.call(made.url, Close, {})), "UNAVAILABLE");
    const refused = made.ends.server.slice(1).map(({ closed }) => aborted(closed));
    assert.ok(refused.length > 0);
    await within("what was refused is closed", Promise.all(refused));
    assert.equal(made.server.connectionCount, 1);
    await made.client.close();
    assert.equal(await first, "CANCELLED");
  },

  "fails where the answer is over its limit": async (t, at) => {
    const handler = unaryHandler(Request, async () => ({ id: "x".repeat(2000) }));
    const answerLimit = () => ({ bytes: 1000, elements: 20 });
    const { client, url } = await pair(t, at, [handler], { client: { answerLimit } });
    await assert.rejects(client.call(url, Request, {}), { code: "RESOURCE_EXHAUSTED" });
  },

  "streams every message in its order, and then the status": async (t, at) => {
    const handler = streamHandler(Find, async function* (_request, call) {
      call.setResponseMetadata("x-answer", "yes");
      for (let i = 0; i < 100; i++) yield { networkServiceEndpoint: { name: String(i), url: "x".repeat(i * 100) } };
      throw new RpcError("ABORTED", "enough");
    });
    const { client, url } = await pair(t, at, [handler]);
    const names: number[] = [];
    const read = async () => {
      for await (const { networkServiceEndpoint } of client.stream(url, Find, {}))
        names.push(Number(networkServiceEndpoint?.name));
    };
    await assert.rejects(read(), { code: "ABORTED", message: "enough" });
    assert.deepEqual(
      names,
      Array.from({ length: 100 }, (_, i) => i),
    );
  },

  "streams no faster than it is read, and ends when the reader leaves": async (t, at) => {
    let made = 0;
    const returned = Promise.withResolvers<void>();
    const handler = streamHandler(Find, async function* () {
      try {
        for (; made < 10_000; made++) yield { networkServiceEndpoint: { url: "x".repeat(10_000) } };
      } finally {
        returned.resolve();
      }
    });
    const { client, url } = await pair(t, at, [handler, echo()]);
    let read = 0;
    for await (const _ of client.stream(url, Find, {})) {
      // On the same connection: what the stream may send has been sent.
      for (let calls = 0; calls < 20; calls++) await client.call(url, Request, {});
      read += 1;
      if (read === 3) break;
    }
    await returned.promise;
    assert.ok(made < 150, `${made} messages were made for 3 that were read`);
  },

  "brings descriptors with it and takes others back, and its caller keeps its own": async (t, at) => {
    const where = folder(t);
    const [there, back] = ["there", "back"].map((name) => {
      writeFileSync(join(where, name), "");
      const fd = Fd.ofPath(join(where, name));
      t.after(() => fd.close());
      return fd;
    });
    assert.ok(there && back);
    const handler = unaryHandler(Request, async (_request, call) => {
      const fd = await call.connection.fds?.receive(there.id(), call.signal);
      call.sendFd(back);
      const id = fd ? fileKey(fd.id()) : "none";
      fd?.close();
      return { id };
    });
    const { client, url } = await pair(t, at, [handler], identities());
    const { response, connection } = await client.call(url, Request, {}, { fds: [there] });
    assert.equal(response.id, fileKey(there.id()));
    const got = await connection.fds?.receive(back.id(), never);
    assert.equal(got && fileKey(got.id()), fileKey(back.id()));
    got?.close();
  },

  "ends at both ends when the connection is lost at the client's": loseAt("client"),

  "ends at both ends when the connection is lost at the server's": loseAt("server"),

  "ends well while the server drains; streams end with the server, and the next call finds none": async (t, at) => {
    const begun = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const slow = unaryHandler(Request, async () => {
      begun.resolve();
      await gate.promise;
      return { id: "done" };
    });
    const { client, url, server } = await pair(t, at, [slow, streamOfOne()]);
    const stream = client.stream(url, Find, {})[Symbol.asyncIterator]();
    await stream.next();
    const call = client.call(url, Request, {});
    await begun.promise;
    const stopped = server.stop(60_000);
    gate.resolve();
    assert.equal((await call).response.id, "done");
    await assert.rejects(stream.next(), { code: "UNAVAILABLE", message: "the server is stopping" });
    await stopped;
    assert.equal(server.connectionCount, 0);
    await assert.rejects(client.call(url, Request, {}), { code: "UNAVAILABLE" });
  },

  "goes over a new connection after the client has a new certificate; one under way continues": renewAt("client"),

  "goes over a new connection after the server has a new certificate; one under way continues": renewAt("server"),

  "that a handler has not begun is tried once more, on another connection where this one takes none": async (t, at) => {
    let tries = 0;
    const handler = unaryHandler(Request, async (_request, { connection }) => {
      tries += 1;
      if (tries > 1) return { id: connection.id };
      connection.renew();
      throw new NotBegun("come again");
    });
    const { client, url, ends } = await pair(t, at, [handler], identities());
    await client.call(url, Request, {});
    assert.deepEqual([tries, ends.client.length], [2, 2]);
  },
};

for (const [where, ground] of Object.entries(grounds)) {
  describe(`a call ${where}`, () => {
    for (const [what, story] of Object.entries(stories)) test(what, (t) => story(t, ground()));
  });
}

/** A stream whose first message comes at once, and no second one. */
function streamOfOne(): RpcHandler {
  return streamHandler(Find, async function* (_request, { signal }) {
    yield {};
    await aborted(signal);
  });
}

test("MemoryTransport carries in an order of its seed: the same again for the same, others for others", async (t) => {
  const orderOf = async (seed: number) => {
    const order: string[] = [];
    const handler = unaryHandler(Request, async ({ connection }) => {
      order.push(connection?.id ?? "");
      return {};
    });
    const at = inMemory(seed);
    const { url } = await pair(t, at, [handler]);
    const callers = ["a", "b", "c", "d", "e"].map((id) => {
      const client = new RpcClient({ log, ...at, dialTimeoutMs: 60_000, idleMs: 60_000 });
      return client.call(url, Request, { connection: { id } }).finally(() => client.close());
    });
    await Promise.all(callers);
    return order.join("");
  };
  const orders: string[] = [];
  for (let seed = 1; seed <= 8; seed++) {
    const order = await orderOf(seed);
    assert.equal(await orderOf(seed), order);
    orders.push(order);
  }
  assert.ok(new Set(orders).size > 4, `the orders were ${orders.join(" ")}`);
});
