import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Spire } from "../../sandbox/identity/spire.ts";
import { createActor } from "../../sandbox/nsm/actor.ts";
import { Client, type ClientOptions } from "../../sandbox/nsm/client.ts";
import { Endpoint } from "../../sandbox/nsm/endpoint.ts";
import { MonitorRecord } from "../../sandbox/nsm/monitor-record.ts";
import { Nsmgr } from "../../sandbox/nsm/nsmgr.ts";
import { inodeUrlOf } from "../../sandbox/nsm/passed-files.ts";
import { systemClock, systemRandom, UndoStack } from "../../src/async/index.ts";
import { MechanismSchema, PathSegmentSchema, State } from "../../src/gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../src/gen/networkservice_pb.ts";
import { checkPath, selectPolicies, serverPolicyMasks } from "../../src/identity/index.ts";
import { Fd } from "../../src/kernel/index.ts";
import { createForwarderService, Registration } from "../../src/nsm/index.ts";
import { PaperVfs, paperNoop, TOKEN } from "../../src/nsm/testing/fakes.ts";
import { RpcClient, serveRpc } from "../../src/rpc/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";

const common = { log: silentLog, clock: systemClock };

/** A manager, an endpoint and our service on real sockets with real identities; only the virtual functions are paper. */
async function startNode(t: TestContext) {
  const undo = new UndoStack();
  t.after(() => undo.unwind((_what, error) => Promise.reject(error)));
  const folder = mkdtempSync(join(tmpdir(), "nsm-"));
  undo.push("folder", () => rmSync(folder, { recursive: true }));
  const spire = new Spire({ clock: systemClock });
  undo.push("spire", () => spire.stop());
  const actorOf = (path: string) => createActor({ spire, spiffeId: spire.idOf(path), clock: systemClock });
  const nsmgr = new Nsmgr({ ...common, name: "nsmgr-1", socketPath: join(folder, "m.sock"), actor: actorOf("nsmgr") });
  undo.push("nsmgr", () => nsmgr.close());
  await nsmgr.start();
  const endpoint = new Endpoint({
    ...common,
    name: "nse-1",
    networkService: "ns-1",
    prefixes: ["172.16.1.0/24"],
    socketPath: join(folder, "e.sock"),
    registryUrl: nsmgr.url,
    actor: actorOf("nse"),
  });
  undo.push("endpoint", () => endpoint.close());
  await endpoint.start();
  const forwarder = await startForwarder(undo, { folder, managerTarget: nsmgr.url, actor: actorOf("fwd") });
  const clientOf = (options: Partial<ClientOptions> = {}) => {
    const parameters = { name: "nsm-1", tokenID: TOKEN, inodeURL: inodeUrlOf(forwarder.netns.id()) };
    const base = { name: "nsc-1", actor: actorOf("nsc"), target: nsmgr.url, networkService: "ns-1", parameters };
    const client = new Client({ ...common, ...base, ...options });
    undo.push("client", () => client.hangUp());
    return client;
  };
  return { folder, actorOf, nsmgr, endpoint, clientOf, undo, ...forwarder };
}

async function startForwarder(
  undo: UndoStack,
  options: { readonly folder: string; readonly managerTarget: string; readonly actor: ReturnType<typeof createActor> },
) {
  const { folder, managerTarget, actor } = options;
  const log = recordingLog();
  const netns = Fd.ofPath(folder); // Any file will do: it is not read here.
  undo.push("netns", () => netns.close());
  const caller = new RpcClient({
    ...common,
    tls: actor.tls,
    dialTimeoutMs: 60_000,
    idleMs: 60_000,
    credentials: actor.headers,
  });
  undo.push("caller", () => caller.close());
  const socketPath = join(folder, "f.sock");
  const registrationOf = (fd: Fd) =>
    new Registration({
      name: "fwd-a",
      networkServices: ["forwarder"],
      labels: { p2p: "true" },
      managerTarget,
      socket: { fd, id: fd.id() },
      tokenLifetimeMs: 600_000,
      caller,
      clock: systemClock,
      log,
    });
  const vfs = new PaperVfs();
  const manager = { current: undefined as Registration | undefined };
  const service = createForwarderService({
    name: "fwd-a",
    managerTarget,
    manager: {
      get spiffeId() {
        return manager.current?.spiffeId;
      },
    },
    caller,
    issueToken: (audience) => actor.token(audience.spiffeId),
    checkPath: (path) => checkPath(selectPolicies(serverPolicyMasks).policies, path),
    mechanisms: { KERNEL: vfs, NOOP: paperNoop },
    journal: { put: async () => {}, drop: async () => {} },
    callerIdleMs: 60_000,
    tokenLifetimeMs: 600_000,
    newId: systemRandom.uuid,
    clock: systemClock,
    log,
  });
  undo.push("service", () => service.stop());
  const server = await serveRpc({ ...common, url: `unix://${socketPath}`, tls: actor.tls, handlers: service.handlers });
  undo.push("server", () => server.stop(0));
  const own = Fd.ofPath(socketPath);
  undo.push("own socket", () => own.close());
  const registration = registrationOf(own);
  manager.current = registration;
  undo.push("registration", () => registration.stop());
  registration.start();
  while (registration.state.value?.kind !== "registered") await registration.state.next();
  return { log, netns, service, registration, url: server.url, vf: vfs.vf };
}

test("a client gets its interface, keeps it on refresh and gives it back, through real peers", async (t) => {
  const { nsmgr, endpoint, clientOf, netns, vf, service, log } = await startNode(t);
  const client = clientOf();
  const first = await client.request({ fds: [netns] });
  assert.deepEqual(
    first.path?.pathSegments.map(({ name }) => name),
    ["nsc-1", "nsmgr-1", "fwd-a", "nse-1"],
  );
  assert.equal(first.mechanism?.parameters["pciAddress"], vf.address);
  assert.equal(first.mechanism?.parameters["inodeURL"], inodeUrlOf(netns.id()));
  assert.deepEqual(vf.done, ["take", "bind", "attach nsm-1"]);
  const reported = log.events.length;
  const second = await client.request({ fds: [netns] });
  assert.deepEqual(
    second.path?.pathSegments.map(({ id }) => id),
    first.path?.pathSegments.map(({ id }) => id),
  );
  assert.deepEqual(vf.done, ["take", "bind", "attach nsm-1"]);
  assert.deepEqual(log.events.slice(reported), []);
  assert.ok(endpoint.requests.length === 2 && nsmgr.forwarded.length === 2);
  await client.close({ fds: [netns] });
  assert.deepEqual(vf.done.slice(3), ["detach", "give-back"]);
  assert.equal(endpoint.closes.length, 1);
  assert.equal(service.connectionCount, 0);
});

test("the manager sees its connections, and sees the death of an endpoint", async (t) => {
  const { nsmgr, endpoint, clientOf, netns } = await startNode(t);
  await clientOf().request({ fds: [netns] });
  const record = nsmgr.watch("fwd-a");
  await record.next(({ connections }) => Object.values(connections).some(({ state }) => state === State.UP));
  await endpoint.close();
  await record.next(({ connections }) => Object.values(connections).some(({ state }) => state === State.DOWN));
});

test("another peer of the trust domain sees nothing, and can neither refresh nor close", async (t) => {
  const { actorOf, clientOf, netns, vf, service, url, undo } = await startNode(t);
  const victim = (await clientOf().request({ fds: [netns] })).path?.pathSegments[2];
  const evil = actorOf("evil");
  const otherPeer = clientOf({ target: url, manager: { name: "nsmgr-2", actor: evil } });
  const alter = ({ connection }: NetworkServiceRequest) => {
    connection?.path?.pathSegments.push(create(PathSegmentSchema, { name: "fwd-a", id: victim?.id ?? "" }));
  };
  await assert.rejects(otherPeer.request({ fds: [netns], alter }), { code: "PERMISSION_DENIED" });
  await assert.rejects(otherPeer.close({ fds: [netns], alter }), { code: "PERMISSION_DENIED" });
  const client = new RpcClient({
    ...common,
    tls: evil.tls,
    dialTimeoutMs: 60_000,
    idleMs: 1000,
    credentials: evil.headers,
  });
  undo.push("another peer", () => client.close());
  const record = new MonitorRecord({ client, target: url, clock: systemClock });
  const { connections } = await record.next(() => true);
  assert.deepEqual(connections, {});
  assert.equal(service.connectionCount, 1);
  assert.ok(!vf.done.includes("detach"));
});

test("a peer that takes a connection's id first keeps the manager from nothing", async (t) => {
  const { actorOf, clientOf, netns, vf, service, url } = await startNode(t);
  const at = ({ connection }: NetworkServiceRequest) => {
    connection?.path?.pathSegments.push(create(PathSegmentSchema, { name: "fwd-a", id: "taken" }));
  };
  const evil = clientOf({ target: url, manager: { name: "nsmgr-2", actor: actorOf("evil") } });
  await evil.request({
    alter(message) {
      at(message);
      message.mechanismPreferences = [create(MechanismSchema, { cls: "LOCAL", type: "NOOP" })];
    },
  });
  const own = clientOf({ target: url, manager: { name: "nsmgr-1", actor: actorOf("nsmgr") } });
  const answer = await own.request({ fds: [netns], alter: at });
  assert.equal(answer.path?.pathSegments[2]?.id, "taken");
  await own.request({ fds: [netns] });
  assert.deepEqual(
    service.connections().map(({ id, mechanism }) => [id, mechanism]),
    [
      ["taken", "NOOP"],
      ["taken (2)", "KERNEL"],
    ],
  );
  await own.close({ fds: [netns] });
  assert.ok(vf.done.includes("give-back"));
  assert.equal(service.connectionCount, 1);
  await evil.close();
  assert.equal(service.connectionCount, 0);
});

test("a client that passes no namespace gets that error, and nothing is left", async (t) => {
  const { clientOf, vf, service, endpoint } = await startNode(t);
  const wrong = { name: "nsm-1", tokenID: TOKEN, inodeURL: "file:///proc/1/ns/net" };
  await assert.rejects(clientOf({ parameters: wrong }).request({ fds: [] }), /want inode:/);
  assert.deepEqual([vf.done, service.connectionCount, endpoint.requests.length], [[], 0, 0]);
});

test("a hostile endpoint's answer is refused and closed", async (t) => {
  const { clientOf, netns, endpoint, service } = await startNode(t);
  endpoint.knobs.alterReply = ({ path }) => {
    path?.pathSegments.splice(1);
  };
  await assert.rejects(clientOf().request({ fds: [netns] }), /its path has 1 segments/);
  assert.deepEqual([endpoint.closes.length, service.connectionCount], [1, 0]);
});

test("a manager that comes back finds us registered again", async (t) => {
  const { nsmgr, clientOf, netns, registration } = await startNode(t);
  const client = clientOf();
  await client.request({ fds: [netns] });
  await nsmgr.stop({ forget: true });
  await registration.state.next();
  await nsmgr.start();
  while (registration.state.value?.kind !== "registered") await registration.state.next();
  assert.ok(nsmgr.registry.endpoints.get("fwd-a"));
});
