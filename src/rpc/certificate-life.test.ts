// What certificates that end, or are renewed, do to connections. Time is handed in; the sockets are real.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { testIdentity } from "../../test/scenes/tls-identity.ts";
import { until, within } from "../../test/scenes/until.ts";
import { systemClock } from "../async/index.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { silentLog } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { RpcClient } from "./client.ts";
import type { Connection, TlsIdentity } from "./connection.ts";
import { type RpcHandler, unaryHandler } from "./handler.ts";
import { Renewals } from "./renewals.ts";
import { type ServeOptions, serveRpc } from "./server.ts";
import { NotBegun } from "./status.ts";

const ca = createTestCa("example.org");
const { request: Request } = NetworkService.method;
const HOUR_MS = 3_600_000;
const LONG_MS = 1000 * HOUR_MS;
const echo = unaryHandler(Request, async ({ connection }) => ({ id: connection?.id ?? "" }));

function identity(name: string) {
  return testIdentity(ca, `spiffe://example.org/${name}`);
}

/** Sees the peer's certificate as good for this time. */
function seeing(tls: TlsIdentity, life: { readonly notBeforeMs: number; readonly notAfterMs: number }): TlsIdentity {
  return { ...tls, verifyPeer: (chain) => ({ ...tls.verifyPeer(chain), ...life }) };
}

async function serve(t: TestContext, options: Partial<ServeOptions>) {
  const folder = mkdtempSync(join(tmpdir(), "rpc-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const url = `unix://${folder}/test.sock`;
  const server = await serveRpc({ url, handlers: [echo], log: silentLog, clock: systemClock, ...options });
  t.after(() => server.stop(0));
  return server;
}

function client(t: TestContext, tls: TlsIdentity, clock = systemClock): RpcClient {
  const made = new RpcClient({ tls, log: silentLog, clock, dialTimeoutMs: LONG_MS, idleMs: LONG_MS });
  t.after(() => made.close());
  return made;
}

const closed = ({ closed: signal }: Connection) => until("the connection has ended", () => signal.aborted);

test("serveRpc() keeps a connection to the end of the peer's certificate, and says GOAWAY then", async (t) => {
  const clock = new HandClock();
  const log = recordingLog();
  const life = { notBeforeMs: clock.now() - HOUR_MS, notAfterMs: clock.now() + HOUR_MS };
  const server = await serve(t, { tls: seeing(identity("server"), life), clock, log });
  const caller = client(t, identity("client"));
  const first = (await caller.call(server.url, Request, {})).connection;
  await clock.pass(HOUR_MS - 1);
  assert.equal((await caller.call(server.url, Request, {})).connection, first);
  assert.deepEqual(log.of("rpc-peer-expired"), []);
  await clock.pass(1);
  assert.equal(log.of("rpc-peer-expired").length, 1);
  await closed(first);
  assert.notEqual((await caller.call(server.url, Request, {})).connection, first);
});

for (const [says, begunMs, leftMs, heldMs] of [
  ["at half of the whole life of the peer's certificate", HOUR_MS, 3 * HOUR_MS, HOUR_MS],
  ["at half of what is left, where half of the life is over", 3 * HOUR_MS, HOUR_MS, HOUR_MS / 2],
] as const) {
  test(`RpcClient leaves a connection ${says}`, async (t) => {
    const clock = new HandClock();
    const life = { notBeforeMs: clock.now() - begunMs, notAfterMs: clock.now() + leftMs };
    const server = await serve(t, { tls: identity("server") });
    const caller = client(t, seeing(identity("client"), life), clock);
    const first = (await caller.call(server.url, Request, {})).connection;
    await clock.pass(heldMs - 1);
    assert.equal((await caller.call(server.url, Request, {})).connection, first);
    await clock.pass(1);
    await closed(first);
    assert.notEqual((await caller.call(server.url, Request, {})).connection, first);
  });
}

test("RpcClient closes a connection that was retired, and given up, while it was dialled", async (t) => {
  const [ours, log] = [identity("client"), recordingLog()];
  const gone = new AbortController();
  const verifyPeer: TlsIdentity["verifyPeer"] = (chain) => {
    ours.rotate();
    gone.abort(new Error("the caller has gone"));
    return ours.verifyPeer(chain);
  };
  const ended = Promise.withResolvers<void>();
  const debug = (event: string) => void (event === "rpc-connection-closed" && ended.resolve());
  const server = await serve(t, { tls: identity("server"), log: { ...log, debug } });
  const caller = client(t, { ...ours, verifyPeer });
  await assert.rejects(caller.call(server.url, Request, {}, { signal: gone.signal }));
  await within("the connection has ended", ended.promise); // it would never be closed: it is not idle, for it was never used
  assert.equal(server.connectionCount, 0);
});

test("RpcClient and serveRpc() go by what each connection has shown", async (t) => {
  const [ours, theirs] = [identity("client"), identity("server")];
  const seen: (string | undefined)[] = [];
  const handler = unaryHandler(Request, async (_request, { connection }) => {
    seen.push(connection.shown?.certChainPem);
    return {};
  });
  const server = await serve(t, { tls: theirs, handlers: [handler] });
  const signed: (string | undefined)[] = [];
  const credentials = (_peer: unknown, shown: { readonly certChainPem: string } | undefined) => {
    signed.push(shown?.certChainPem);
    return {};
  };
  const options = { log: silentLog, clock: systemClock, dialTimeoutMs: LONG_MS, idleMs: LONG_MS, credentials };
  const caller = new RpcClient({ ...options, tls: { ...ours, onRotate: () => () => {} } });
  t.after(() => caller.close());
  const shown = [ours, theirs].map((one) => one.credentials().certChainPem);
  await caller.call(server.url, Request, {});
  ours.rotate();
  await caller.call(server.url, Request, {}); // the client was not notified: the old connection, and the old key
  assert.deepEqual([signed, seen], [Array(2).fill(shown[0]), Array(2).fill(shown[1])]);
});

test("serveRpc() has its peers come back when our certificate is renewed, also during a handshake", async (t) => {
  const theirs = identity("server");
  let meanwhile = () => {};
  const verifyPeer: TlsIdentity["verifyPeer"] = (chain) => {
    meanwhile();
    return theirs.verifyPeer(chain);
  };
  const server = await serve(t, { tls: { ...theirs, verifyPeer } });
  const first = (await client(t, identity("early")).call(server.url, Request, {})).connection;
  theirs.rotate();
  await closed(first);
  let count = 0;
  meanwhile = () => void (count++ === 0 && theirs.rotate());
  const late = client(t, identity("late"));
  const isNewest = ({ peer }: Connection) => peer?.certificatePem.trim() === theirs.credentials().certChainPem.trim();
  const second = (await late.call(server.url, Request, {})).connection;
  if (!isNewest(second)) await closed(second); // the call was quicker than the GOAWAY
  const third = (await late.call(server.url, Request, {})).connection;
  assert.deepEqual([isNewest(third), count], [true, 2]);
});

/** Sends each connection away once that it may send away. */
function sending(seen: Connection[]): RpcHandler {
  return unaryHandler(Request, async ({ connection }, call) => {
    seen.push(call.connection);
    if (call.connection.renew()) throw new NotBegun("come back");
    return { id: connection?.id ?? "" };
  });
}

test("serveRpc() sends a peer away that must show a newer certificate, and it is served at once, once", async (t) => {
  const seen: Connection[] = [];
  const server = await serve(t, { tls: identity("server"), handlers: [sending(seen)] });
  const caller = client(t, identity("client"));
  const { response } = await caller.call(server.url, Request, { connection: { id: "a" } });
  assert.deepEqual([response.id, new Set(seen).size], ["a", 2]);
  await caller.call(server.url, Request, {});
  assert.deepEqual([seen.length, new Set(seen).size], [3, 2]); // the same certificate: not sent away again
});

test("RpcClient calls a peer on a new connection that must show a newer certificate, once", async (t) => {
  const server = await serve(t, { tls: identity("server") });
  const caller = client(t, identity("client"));
  const first = (await caller.call(server.url, Request, {})).connection;
  assert.equal(first.renew(), true);
  await closed(first);
  const second = (await caller.call(server.url, Request, {})).connection;
  assert.notEqual(second, first);
  assert.equal(second.renew(), false);
  assert.equal((await caller.call(server.url, Request, {})).connection, second);
});

test("Renewals sends away each connection of a certificate that was open before, and none that came after", () => {
  const renewals = new Renewals();
  const peer = (certificatePem: string) => ({ spiffeId: "a", certificatePem, notBeforeMs: 0, notAfterMs: 0 });
  const [first, second] = [renewals.opened(peer("old")), renewals.opened(peer("old"))];
  assert.deepEqual([first(), second()], [true, true]);
  const third = renewals.opened(peer("old"));
  assert.deepEqual([third(), renewals.opened(peer("new"))(), renewals.opened(undefined)()], [false, true, false]);
  for (let at = 0; at < 256; at++) renewals.opened(peer(`other ${at}`))();
  assert.equal(renewals.opened(peer("old"))(), true); // forgotten: the memory of certificates has an end
});
