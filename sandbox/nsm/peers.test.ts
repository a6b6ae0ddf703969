import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock, UndoStack } from "../../src/async/index.ts";
import { ConnectionEventType } from "../../src/gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../src/gen/networkservice_pb.ts";
import { NetworkServiceEndpointRegistry } from "../../src/gen/registry_pb.ts";
import { Fd } from "../../src/kernel/index.ts";
import { RpcClient } from "../../src/rpc/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { Spire } from "../identity/spire.ts";
import { createActor } from "./actor.ts";
import { Client, type ClientOptions } from "./client.ts";
import { Endpoint } from "./endpoint.ts";
import { MonitorRecord } from "./monitor-record.ts";
import { Nsmgr } from "./nsmgr.ts";
import { inodeUrlOf } from "./passed-files.ts";

const common = { log: silentLog, clock: systemClock };

/** An NSMgr and an endpoint on sockets of their own. The endpoint serves as the "forwarder": the peers are alike to NSM. */
async function startPeers(t: TestContext) {
  const undo = new UndoStack();
  t.after(() => undo.unwind((_what, error) => Promise.reject(error)));
  const folder = mkdtempSync(join(tmpdir(), "peers-"));
  undo.push("folder", () => rmSync(folder, { recursive: true }));
  const spire = new Spire({ clock: systemClock });
  undo.push("spire", () => spire.stop());
  const actorOf = (path: string) => createActor({ spire, spiffeId: spire.idOf(path), clock: systemClock });
  const nsmgr = new Nsmgr({
    ...common,
    name: "nsmgr-1",
    socketPath: join(folder, "nsmgr.sock"),
    actor: actorOf("nsmgr"),
  });
  undo.push("nsmgr", () => nsmgr.close());
  await nsmgr.start();
  const endpoint = new Endpoint({
    ...common,
    name: "nse-1",
    networkService: "forwarder",
    labels: { p2p: "true" },
    prefixes: ["172.16.1.0/24", "2001:db8::/120"],
    context: { ethernet: { srcMac: "02:00:00:00:00:01", vlanTag: 7 }, mtu: 9000 },
    socketPath: join(folder, "nse.sock"),
    registryUrl: nsmgr.url,
    actor: actorOf("nse"),
  });
  undo.push("endpoint", () => endpoint.close());
  await endpoint.start();
  const clientOf = (options: Partial<ClientOptions>) => {
    const base = { name: "nsc-1", actor: actorOf("nsc"), target: nsmgr.url, networkService: "ns-1" };
    const client = new Client({ ...common, ...base, ...options });
    undo.push("client", () => client.hangUp());
    return client;
  };
  const { tls, headers } = actorOf("probe");
  const rpc = new RpcClient({ ...common, tls, dialTimeoutMs: 60_000, idleMs: 60_000, credentials: headers });
  undo.push("probe", () => rpc.close());
  return { folder, spire, actorOf, nsmgr, endpoint, clientOf, rpc };
}

/** Asks for NOOP in place of KERNEL: what an endpoint can do. */
function preferNoop(request: NetworkServiceRequest): void {
  for (const preference of request.mechanismPreferences) preference.type = "NOOP";
}

test("Endpoint registers at the NSMgr and can be found with its socket as a passed descriptor", async (t) => {
  const { nsmgr, rpc } = await startPeers(t);
  const stream = rpc.stream(nsmgr.url, NetworkServiceEndpointRegistry.method.find, {
    networkServiceEndpoint: { networkServiceNames: ["forwarder"] },
  });
  const { fds } = await stream.connection;
  assert.ok(fds);
  for await (const { networkServiceEndpoint } of stream) {
    assert.equal(networkServiceEndpoint?.name, "nse-1");
    assert.deepEqual(networkServiceEndpoint?.pathIds, ["spiffe://sandbox.test/nse", "spiffe://sandbox.test/nsmgr"]);
    const [, dev = "", ino = ""] = /^inode:\/\/(\d+)\/(\d+)$/.exec(networkServiceEndpoint?.url ?? "") ?? [];
    const socket = await fds.receive({ dev: BigInt(dev), ino: BigInt(ino) }, new AbortController().signal);
    socket.close();
  }
});

test("NetworkServiceEndpointRegistry Find notifies a watcher of endpoints that come and go", async (t) => {
  const { nsmgr, rpc, endpoint } = await startPeers(t);
  const stream = rpc.stream(nsmgr.url, NetworkServiceEndpointRegistry.method.find, { watch: true });
  const seen: string[] = [];
  for await (const { networkServiceEndpoint, deleted } of stream) {
    seen.push(`${networkServiceEndpoint?.name} ${deleted}`);
    if (deleted) break;
    nsmgr.registry.removeEndpoint(endpoint.name);
  }
  assert.deepEqual(seen, ["nse-1 false", "nse-1 true"]);
});

test("Client gets its connection through the NSMgr, keeps it on refresh and closes it", async (t) => {
  const { nsmgr, endpoint, clientOf } = await startPeers(t);
  const client = clientOf({});
  const first = await client.request({ alter: preferNoop });
  assert.deepEqual(
    first.path?.pathSegments.map(({ name }) => name),
    ["nsc-1", "nsmgr-1", "nse-1"],
  );
  assert.deepEqual([first.path?.index, first.id], [0, first.path?.pathSegments[0]?.id]);
  assert.deepEqual(first.context?.ipContext?.srcIpAddrs, ["172.16.1.1/32", "2001:db8::1/128"]);
  assert.deepEqual([first.context?.MTU, first.context?.ethernetContext?.vlanTag], [9000, 7]);
  const record = nsmgr.watch("nse-1");
  await record.next(
    ({ type, connections }) =>
      type === ConnectionEventType.INITIAL_STATE_TRANSFER && Object.keys(connections).length === 1,
  );
  const second = await client.request({ alter: preferNoop });
  assert.deepEqual(
    second.path?.pathSegments.map(({ id }) => id),
    first.path?.pathSegments.map(({ id }) => id),
  );
  assert.deepEqual(second.context, first.context);
  await client.close();
  await record.next(({ type }) => type === ConnectionEventType.DELETE);
  assert.deepEqual([endpoint.requests.length, endpoint.closes.length], [2, 1]);
  assert.deepEqual(
    nsmgr.forwarded.map(({ kind }) => kind),
    ["request", "request", "close"],
  );
});

test("NSMgr hands the descriptors of a Request on", async (t) => {
  const { folder, clientOf } = await startPeers(t);
  const file = Fd.ofPath(folder); // any file will do: only the forwarder looks into it
  const inodeURL = inodeUrlOf(file.id());
  const client = clientOf({ parameters: { inodeURL } });
  const { mechanism } = await client.request({ alter: preferNoop, fds: [file] });
  assert.equal(mechanism?.parameters["inodeURL"], inodeURL);
  file.close();
  await client.close({ fds: [] });
});

test("Client that plays the NSMgr chains its tokens", async (t) => {
  const { folder, endpoint, clientOf, actorOf } = await startPeers(t);
  const manager = { name: "nsmgr-9", actor: actorOf("nsmgr-9") };
  const client = clientOf({ target: `unix://${folder}/nse.sock`, manager });
  const { path } = await client.request({ alter: preferNoop });
  assert.deepEqual(
    path?.pathSegments.map(({ name }) => name),
    ["nsc-1", "nsmgr-9", "nse-1"],
  );
  assert.equal(path?.index, 1);
  await client.close();
  assert.equal(endpoint.closes.length, 1);
});

const forgeries: readonly {
  says: string;
  headers?: Record<string, string>;
  alter?: (request: NetworkServiceRequest) => void;
}[] = [
  { says: "without a token", headers: {} },
  {
    says: "with a token that is none",
    headers: { "nsm-client-token": "a.b.c", "nsm-client-token-expires": "2099-01-01T00:00:00Z" },
  },
  {
    says: "with a foreign connection id",
    alter: ({ connection }) => void (connection && Object.assign(connection, { id: "x" })),
  },
  {
    says: "with a path index out of range",
    alter: ({ connection }) => void (connection?.path && Object.assign(connection.path, { index: 9 })),
  },
];
for (const { says, ...changes } of forgeries) {
  test(`NSMgr refuses a Request ${says}`, async (t) => {
    const { endpoint, clientOf } = await startPeers(t);
    const client = clientOf({});
    await assert.rejects(client.request(changes), { name: "RpcError" });
    assert.equal(endpoint.requests.length, 0);
  });
}

test("NSMgr comes back on its path after a stop", async (t) => {
  const { nsmgr, clientOf } = await startPeers(t);
  const client = clientOf({});
  await nsmgr.stop();
  await assert.rejects(client.request({ alter: preferNoop }), { name: "RpcError" });
  await nsmgr.start();
  await client.request({ alter: preferNoop });
});

test("Endpoint misbehaves as set", async (t) => {
  const { endpoint, clientOf } = await startPeers(t);
  const client = clientOf({});
  endpoint.knobs.failTimes = 1;
  await assert.rejects(client.request({ alter: preferNoop }), /was set to fail/);
  endpoint.knobs.alterReply = (reply) => Object.assign(reply, { payload: "odd" });
  assert.equal((await client.request({ alter: preferNoop })).payload, "odd");
});

test("MonitorRecord says when the other side has gone", async (t) => {
  const { nsmgr, endpoint, rpc } = await startPeers(t);
  const target = nsmgr.registry.endpoints.get("nse-1")?.endpoint.url ?? "";
  const record = new MonitorRecord({ client: rpc, target, clock: systemClock });
  await record.next(({ type }) => type === ConnectionEventType.INITIAL_STATE_TRANSFER);
  await endpoint.die();
  await assert.rejects(
    record.next(() => false),
    /has ended/,
  );
});
