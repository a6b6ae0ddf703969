// However a call ends, and however a connection does: once its idle time has passed nothing of it is left at either end, while
// both continue serving; and nothing at all when they have stopped. Time passes only where it is moved here.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { type TestIdentity, testIdentity } from "../../test/scenes/tls-identity.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { NetworkServiceEndpointRegistry } from "../gen/registry_pb.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { silentLog } from "../telemetry/index.ts";
import { type CallOptions, RpcClient } from "./client.ts";
import type { Connection } from "./connection.ts";
import { streamHandler, unaryHandler } from "./handler.ts";
import { type RpcServer, serveRpc } from "./server.ts";
import { RpcError } from "./status.ts";

const ca = createTestCa("example.org");
const foreignCa = createTestCa("example.org");
const { request: Request, close: Close } = NetworkService.method;
const { find: Find, register: Register } = NetworkServiceEndpointRegistry.method;
const DIAL_MS = 3_000;
const IDLE_MS = 10_000;
const TURNS = 3_000;

interface Ends {
  readonly server: RpcServer;
  readonly client: RpcClient;
  readonly clientClock: HandClock;
  readonly ids: { readonly server: TestIdentity; readonly client: TestIdentity };
  /** Through a relay that can be cut. */
  readonly target: string;
  readonly folder: string;
  /** The next call of Request has begun. */
  begun(): Promise<void>;
  /** Lets the calls of Request that have begun be answered. */
  answer(): void;
  call(options?: CallOptions): Promise<unknown>;
  cut(): void;
  caller: AbortController;
}

/** Turns of the event loop until it is so, or enough of them for everything that is on its way here. */
async function soon(isSo: () => boolean): Promise<void> {
  for (let turn = 0; turn < TURNS && !isSo(); turn++) await new Promise(setImmediate);
}

function handlersFor(begun: () => void, answered: () => Promise<void>, seen: (connection: Connection) => void) {
  return [
    unaryHandler(Request, async (_request, call) => {
      seen(call.connection);
      begun();
      await answered();
      return {};
    }),
    unaryHandler(Close, async () => {
      throw new RpcError("NOT_FOUND", "no");
    }),
    streamHandler(Find, async function* ({ watch }, call) {
      seen(call.connection);
      for (let count = 0; watch || count < 3; count++) yield {};
    }),
  ];
}

async function setUp(t: TestContext, isTls: boolean) {
  const folder = mkdtempSync(join(tmpdir(), "rpc-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [clientClock, serverClock] = [new HandClock(Date.now()), new HandClock(Date.now())];
  const ids = {
    server: testIdentity(ca, "spiffe://example.org/server"),
    client: testIdentity(ca, "spiffe://example.org/client"),
  };
  const tls = (id: TestIdentity) => (isTls ? { tls: id } : {});
  const seen = new Set<Connection>();
  let began = Promise.withResolvers<void>();
  let answer = Promise.withResolvers<void>();
  const options = {
    ...tls(ids.server),
    clock: serverClock,
    log: silentLog,
    limits: { calls: { each: 3, others: 6, manager: 0 }, maxHandshakes: 2 },
  };
  const handlers = handlersFor(
    () => began.resolve(),
    () => answer.promise,
    (connection) => seen.add(connection),
  );
  const server = await serveRpc({ ...options, url: `unix://${folder}/server.sock`, handlers });
  const relay = await startRelay(`${folder}/relay.sock`, `${folder}/server.sock`);
  const client = new RpcClient({
    ...tls(ids.client),
    clock: clientClock,
    log: silentLog,
    dialTimeoutMs: DIAL_MS,
    idleMs: IDLE_MS,
  });
  const ends: Ends = {
    ...{ server, client, clientClock, ids, folder, cut: relay.cut, target: `unix://${folder}/relay.sock` },
    caller: new AbortController(),
    begun: () => began.promise,
    answer: () => answer.resolve(),
    call: (more = {}) => client.call(ends.target, Request, {}, { signal: ends.caller.signal, ...more }),
  };
  const renew = () => {
    answer.resolve();
    [began, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    ends.caller = new AbortController();
  };
  return { ends, renew, relay, seen, clientClock, serverClock };
}

async function startRelay(path: string, onward: string) {
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = createConnection({ path: onward });
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.pipe(far).pipe(near);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return { cut, openSockets: () => sockets.size, close: () => server.close() };
}

const failed = (work: Promise<unknown>) =>
  work.then(
    () => assert.fail("it worked"),
    (error: RpcError) => error.code,
  );

/** What a call can meet; each leaves both ends as if it had not been. */
const lives: Readonly<Record<string, (ends: Ends) => Promise<unknown>>> = {
  async "is answered"(ends) {
    ends.answer();
    await ends.call();
  },
  "is refused by its handler": ({ client, target, caller: { signal } }) =>
    failed(client.call(target, Close, {}, { signal })),
  "is of an unknown method": ({ client, target, caller: { signal } }) =>
    failed(client.call(target, Register, {}, { signal })),
  "is too large": ({ client, target, caller: { signal } }) =>
    failed(client.call(target, Request, { connection: { id: "x".repeat(300_000) } }, { signal })),
  "has metadata that cannot travel": (ends) => failed(ends.call({ metadata: { "no name": "" } })),
  async "is cancelled before it begins"(ends) {
    ends.caller.abort();
    await failed(ends.call());
  },
  async "is cancelled while it is dialled"(ends) {
    const call = failed(ends.call());
    ends.caller.abort();
    await call;
  },
  async "is cancelled while it runs"(ends) {
    const call = failed(ends.call());
    await ends.begun();
    ends.caller.abort();
    await call;
  },
  async "shares its dial with one that is cancelled"(ends) {
    const call = failed(ends.call());
    ends.answer();
    const other = ends.call({ signal: new AbortController().signal });
    ends.caller.abort();
    await Promise.all([call, other]);
  },
  async "takes longer than it may"(ends) {
    const call = failed(ends.call({ timeoutMs: 500 }));
    await ends.begun();
    await ends.clientClock.pass(500);
    assert.equal(await call, "DEADLINE_EXCEEDED");
  },
  async "loses its line"(ends) {
    const call = failed(ends.call());
    await ends.begun();
    ends.cut();
    assert.equal(await call, "UNAVAILABLE");
  },
  async "has left a connection whose line is cut"(ends) {
    ends.answer();
    await ends.call();
    ends.cut();
    await soon(() => ends.server.connectionCount === 0);
    await ends.call();
  },
  async "runs while our certificate is renewed"(ends) {
    const call = ends.call();
    await ends.begun();
    ends.ids.client.rotate();
    ends.answer();
    await call;
  },
  async "runs while the peer's certificate is renewed"(ends) {
    const call = ends.call();
    await ends.begun();
    ends.ids.server.rotate();
    ends.answer();
    await call;
  },
  "finds no server": ({ client, folder, caller: { signal } }) =>
    failed(client.call(`unix://${folder}/none.sock`, Close, {}, { signal })),
  async "finds a server that says nothing"({ client, clientClock, folder, caller: { signal } }) {
    const peers: Socket[] = [];
    const mute = createServer((socket) => peers.push(socket.resume()));
    await new Promise<void>((resolve) => mute.listen(`${folder}/mute.sock`, resolve));
    const call = failed(client.call(`unix://${folder}/mute.sock`, Close, {}, { signal }));
    await soon(() => peers.length > 0);
    await clientClock.pass(DIAL_MS);
    assert.equal(await call, "UNAVAILABLE");
    await soon(() => peers.every(({ closed }) => closed));
    assert.ok(
      peers.every(({ readableEnded }) => readableEnded),
      "the peer is still connected",
    );
    mute.close();
  },
  async "reads a stream to its end"({ client, target, caller: { signal } }) {
    for await (const _ of client.stream(target, Find, {}, { signal }));
  },
  async "leaves a stream that continues"({ client, target, caller: { signal } }) {
    for await (const _ of client.stream(target, Find, { watch: true }, { signal })) break;
  },
  async "cancels a stream without a reader"({ client, target, caller: { signal } }) {
    const stream = client.stream(target, Find, { watch: true }, { signal });
    await stream.connection;
    stream.cancel();
  },
};

function openFds(): number {
  return readdirSync("/proc/self/fd").length;
}

async function play(t: TestContext, isTls: boolean, life: (ends: Ends) => Promise<unknown>): Promise<void> {
  const fdsBefore = openFds();
  const { ends, renew, relay, seen, clientClock, serverClock } = await setUp(t, isTls);
  t.after(async () => {
    relay.close();
    await Promise.all([ends.client.close(), ends.server.stop(0)]);
  });
  const fdsServing = openFds();
  const signals: AbortSignal[] = [];
  const left = () => ({
    "listeners on the caller's signal": signals.reduce((sum, one) => sum + getEventListeners(one, "abort").length, 0),
    "timers of the client": clientClock.timerCount,
    "timers of the server": serverClock.timerCount,
    connections: ends.server.connectionCount,
    "connections that look open to a handler": [...seen].filter(({ closed }) => !closed.aborted).length,
    "lines of the relay": relay.openSockets(),
    descriptors: openFds() - fdsServing,
    "listeners for our certificates": ends.ids.client.listenerCount + ends.ids.server.listenerCount - (isTls ? 2 : 0),
  });
  const isNothing = () => Object.values(left()).every((count) => count === 0);
  // Four times: what each would leave with the server adds up to more than one peer may have.
  for (let time = 0; time < 4; time++) {
    await life(ends);
    signals.push(ends.caller.signal);
    renew();
  }
  await clientClock.pass(IDLE_MS);
  await soon(isNothing);
  assert.deepEqual(left(), Object.fromEntries(Object.keys(left()).map((what) => [what, 0])));
  ends.answer();
  await ends.call();
  relay.close();
  await Promise.all([ends.client.close(), ends.server.stop(60_000)]);
  await soon(() => openFds() === fdsBefore);
  assert.deepEqual([clientClock.timerCount, serverClock.timerCount, openFds() - fdsBefore], [0, 0, 0]);
  assert.deepEqual([ends.ids.client.listenerCount, ends.ids.server.listenerCount], [0, 0]);
}

for (const isTls of [true, false]) {
  for (const [says, life] of Object.entries(lives)) {
    test(`a call that ${says} leaves nothing behind ${isTls ? "with" : "without"} TLS`, (t) => play(t, isTls, life));
  }
}

test("a call to a peer that is not trusted leaves nothing behind", async (t) => {
  await play(t, true, async ({ client, folder, caller: { signal } }) => {
    const tls = testIdentity(foreignCa, "spiffe://example.org/server");
    const clock = new HandClock(Date.now());
    const other = await serveRpc({ url: `unix://${folder}/other.sock`, tls, clock, log: silentLog, handlers: [] });
    t.after(() => other.stop(0));
    assert.equal(await failed(client.call(other.url, Close, {}, { signal })), "UNAVAILABLE");
    await other.stop(0);
    await soon(() => clock.timerCount === 0);
    assert.deepEqual([clock.timerCount, tls.listenerCount], [0, 0]);
  });
});
