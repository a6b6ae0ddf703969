import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { testIdentity } from "../../test/scenes/tls-identity.ts";
import { until, within } from "../../test/scenes/until.ts";
import { systemClock } from "../async/index.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { silentLog } from "../telemetry/index.ts";
import { RpcClient } from "./client.ts";
import { unaryHandler } from "./handler.ts";
import { type RpcServer, serveRpc } from "./server.ts";

const ca = createTestCa("example.org");
const { request: Request } = NetworkService.method;

/** A server whose one call never ends, a relay that can cut the line, and a client behind it. */
async function line(t: TestContext, isTls: boolean, relaysEnds = true) {
  const folder = mkdtempSync(join(tmpdir(), "rpc-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const tls = (name: string) => (isTls ? { tls: testIdentity(ca, `spiffe://example.org/${name}`) } : {});
  const options = { log: silentLog, clock: systemClock };
  const begun = Promise.withResolvers<AbortSignal>();
  // What must not be: no call of these tests may be made again. A caller that waits for its end is notified.
  const twice = Promise.withResolvers<string>();
  let calls = 0;
  const stuck = unaryHandler(Request, async (_request, call) => {
    if (++calls > 1) twice.resolve("CALLED TWICE");
    begun.resolve(call.signal);
    return await new Promise<never>(() => {});
  });
  const url = `unix://${folder}/server.sock`;
  const server = await serveRpc({ ...options, ...tls("server"), url, handlers: [stuck] });
  const relay = join(folder, "relay.sock");
  const [near, far] = await startRelay(t, relay, {
    onward: `${folder}/server.sock`,
    relaysEnds,
    again: () => twice.resolve("DIALLED TWICE"),
  });
  const client = new RpcClient({ ...options, ...tls("client"), dialTimeoutMs: 60_000, idleMs: 60_000 });
  t.after(() => Promise.all([client.close(), server.stop(0)]));
  const target = `unix://${relay}`;
  const call = client.call(target, Request, {}).then(
    () => "OK",
    (error: { code: string }) => error.code,
  );
  const code = within("the call ends", Promise.race([call, twice.promise]));
  return { server, client, target, signal: await within("the call begins", begun.promise), code, near, far };
}

interface RelayOptions {
  readonly onward: string;
  /** False: neither side learns that the other has closed. */
  readonly relaysEnds: boolean;
  /** There is more than one connection. */
  again(): void;
}

/** Passes bytes between both, and hands out its own two ends. */
async function startRelay(
  t: TestContext,
  path: string,
  { onward, relaysEnds, again }: RelayOptions,
): Promise<[Promise<Socket>, Promise<Socket>]> {
  const near = Promise.withResolvers<Socket>();
  const far = Promise.withResolvers<Socket>();
  let dials = 0;
  const relay = createServer({ allowHalfOpen: true }, (socket) => {
    if (++dials > 1) again();
    const other = createConnection({ path: onward, allowHalfOpen: true });
    t.after(() => {
      socket.destroy();
      other.destroy();
    });
    socket.on("error", () => {});
    other.on("error", () => {});
    socket.pipe(other, { end: relaysEnds });
    other.pipe(socket, { end: relaysEnds });
    near.resolve(socket);
    far.resolve(other);
  });
  await new Promise<void>((resolve) => relay.listen(path, resolve));
  t.after(() => relay.close());
  return [near.promise, far.promise];
}

function waitForNone(server: RpcServer): Promise<void> {
  return until("the server has no connection any more", () => server.connectionCount === 0);
}

for (const isTls of [true, false]) {
  const how = isTls ? "with TLS" : "without TLS";

  test(`serveRpc() lets go of a client that closes with a call open, ${how}`, async (t) => {
    const { server, client, signal, code } = await line(t, isTls);
    await client.close();
    await waitForNone(server);
    assert.deepEqual([signal.aborted, await code], [true, "CANCELLED"]);
  });

  test(`serveRpc() lets go of a client that only ends its half, ${how}`, async (t) => {
    const { server, signal, far, near } = await line(t, isTls);
    (await far).end();
    await waitForNone(server);
    assert.equal(signal.aborted, true);
    (await near).destroy();
  });

  test(`RpcClient keeps its deadline with a peer that does not read, ${how}`, async (t) => {
    const { client, target, near, far, code } = await line(t, isTls);
    (await near).pause();
    const request = { connection: { id: "x".repeat(10_000_000) } };
    await assert.rejects(client.call(target, Request, request, { timeoutMs: 50 }), { code: "DEADLINE_EXCEEDED" });
    (await near).destroy();
    (await far).destroy();
    assert.equal(await code, "UNAVAILABLE");
  });

  test(`RpcClient ends its calls when the server stops hard, ${how}`, async (t) => {
    const { server, code, near } = await line(t, isTls);
    await server.stop(0);
    assert.equal(await code, "UNAVAILABLE");
    (await near).destroy();
  });

  test(`RpcServer.stop() and RpcClient.close() do not wait for a peer that never closes, ${how}`, async (t) => {
    const { server, client, code, near, far } = await line(t, isTls, false);
    await server.stop(0);
    await client.close();
    assert.equal(server.connectionCount, 0);
    assert.match(await code, /UNAVAILABLE|CANCELLED/);
    (await near).destroy();
    (await far).destroy();
  });

  test(`RpcClient ends its calls when the server only ends its half, ${how}`, async (t) => {
    const { code, near, far } = await line(t, isTls);
    (await near).end();
    assert.equal(await code, "UNAVAILABLE");
    (await far).destroy();
  });

  test(`RpcClient and serveRpc() end their calls when the line is cut, ${how}`, async (t) => {
    const { server, signal, code, near, far } = await line(t, isTls);
    (await near).destroy();
    (await far).destroy();
    assert.equal(await code, "UNAVAILABLE");
    await waitForNone(server);
    assert.equal(signal.aborted, true);
  });
}
