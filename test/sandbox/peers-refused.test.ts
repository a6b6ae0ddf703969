// Peers that may not do what they try, or do not even speak the protocol: refused, and no other peer notices.
import assert from "node:assert/strict";
import { mkdirSync, openSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { create } from "@bufbuild/protobuf";
import { Spire } from "../../sandbox/identity/spire.ts";
import { type Actor, createActor } from "../../sandbox/nsm/actor.ts";
import { MonitorRecord } from "../../sandbox/nsm/monitor-record.ts";
import { headersOfToken } from "../../sandbox/nsm/peer-token.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { PathSegmentSchema } from "../../src/gen/connection_pb.ts";
import { NetworkService, type NetworkServiceRequest } from "../../src/gen/networkservice_pb.ts";
import { Fd } from "../../src/kernel/index.ts";
import { RpcClient } from "../../src/rpc/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { ipDump } from "./scenes/ip.ts";
import { eventually, openFiles, refusal, runStories, type Scene, type Story } from "./scenes/story.ts";

/** What is wrong with the proofs of one Request. */
interface Row {
  readonly says: string;
  readonly headers?: (scene: Scene) => Readonly<Record<string, string>>;
  readonly alter?: (request: NetworkServiceRequest, scene: Scene) => void;
  readonly message: RegExp;
}

const rows: readonly Row[] = [
  { says: "no token", headers: () => ({}), message: /no sufficient privileges/ },
  {
    says: "a token that is none",
    headers: () => ({ "nsm-client-token": "x.y.z", "nsm-client-token-expires": "2100-01-01T00:00:00Z" }),
    message: /no sufficient privileges/,
  },
  {
    says: "an expired token",
    headers: (scene) => headersFor(scene, manager(scene, { tokenLifetimeMs: -60_000 })),
    message: /expired/,
  },
  {
    says: "another peer's token",
    headers: (scene) => headersFor(scene, scene.sandbox.actor("nse")),
    message: /no sufficient privileges/,
  },
  {
    says: "a token for another peer",
    headers: (scene) => headersOfToken(manager(scene).token(scene.sandbox.spire.idOf("another-forwarder"))),
    message: /no sufficient privileges.*chained/s,
  },
  {
    says: "tokens that are not chained",
    alter: ({ connection }, scene) => {
      const [first] = connection?.path?.pathSegments ?? [];
      if (first) first.token = scene.sandbox.actor("nsc").token(scene.sandbox.spire.idOf("another-manager")).token;
    },
    message: /no sufficient privileges.*chained/s,
  },
];

runStories(
  "peers",
  {},
  {
    ...Object.fromEntries(
      rows.map((row): [string, Story] => [`with ${row.says} are refused`, (scene) => refused(scene, row)]),
    ),
    "of a foreign trust domain are not spoken with": foreignDomain,
    "without a certificate are not spoken with": noCertificate,
    "cannot use, close or see a connection that another one made, by its id": stolenConnection,
    "that send a thousand files are served and hold nothing afterwards": thousandFiles,
    "that send garbage in place of TLS hurt no other": garbage,
    "that never finish their handshakes hurt no other": halfOpen,
  },
);

async function refused(scene: Scene, { headers, alter, message }: Row): Promise<void> {
  const pod = await scene.pod();
  const client = scene.direct(pod);
  const requested = scene.sandbox.endpoint.requests.length;
  const request = client.request({
    ...(headers && { headers: headers(scene) }),
    ...(alter && { alter: (sent) => alter(sent, scene) }),
  });
  await assert.rejects(request, refusal("PERMISSION_DENIED", message));
  assert.equal(scene.sandbox.endpoint.requests.length, requested);
  await scene.serves(pod);
}

async function foreignDomain(scene: Scene): Promise<void> {
  const pod = await scene.pod();
  const elsewhere = new Spire({ trustDomain: "elsewhere.test", clock });
  elsewhere.federate(scene.sandbox.spire.trustDomain); // it believes us; we do not believe it
  const foreign = createActor({ spire: elsewhere, spiffeId: elsewhere.idOf("nsmgr"), clock });
  // The server's chain is accepted, so that it is the forwarder who refuses.
  const trusting = { ...foreign.tls, verifyPeer: scene.sandbox.actor("nsmgr").tls.verifyPeer };
  const client = scene.direct(pod, { manager: { name: "nsmgr-1", actor: { ...foreign, tls: trusting } } });
  const connections = scene.forwarder.nsm.connectionCount;
  await assert.rejects(client.request(), refusal("UNAVAILABLE", /./));
  assert.equal(scene.forwarder.nsm.connectionCount, connections);
  await scene.serves(pod);
}

async function noCertificate(scene: Scene): Promise<void> {
  const pod = await scene.pod();
  const client = new RpcClient({ log: silentLog, clock, dialTimeoutMs: 60_000, idleMs: 1000 });
  try {
    const call = client.call(scene.forwarder.url, NetworkService.method.request, {});
    await assert.rejects(call, refusal("UNAVAILABLE", /./));
  } finally {
    await client.close();
  }
  await scene.serves(pod);
}

async function stolenConnection(scene: Scene): Promise<void> {
  const { nsmgr } = scene.sandbox;
  const [pod, other] = [await scene.pod(), await scene.pod()];
  const victim = (await pod.client.request()).path?.pathSegments[2];
  const before = await ipDump(pod.pod.netns);
  const evil = scene.sandbox.actor("ns/default/pod/evil");
  const thief = scene.direct(other, { manager: { name: "nsmgr-2", actor: evil } });
  const alter = ({ connection }: NetworkServiceRequest) => {
    connection?.path?.pathSegments.push(create(PathSegmentSchema, { name: "forwarder-1", id: victim?.id ?? "" }));
  };
  // The id leads it to a connection of its own.
  await thief.request({ alter });
  assert.equal(scene.forwarder.nsm.connectionCount, 2);
  await thief.close();
  await assert.rejects(thief.close({ alter }), refusal("PERMISSION_DENIED", /the caller has no connection of this id/));
  const client = new RpcClient({
    log: silentLog,
    clock,
    tls: evil.tls,
    dialTimeoutMs: 60_000,
    idleMs: 1000,
    credentials: evil.headers,
  });
  try {
    const segments = [{ name: nsmgr.name }];
    const spied = new MonitorRecord({ client, target: scene.forwarder.url, segments, clock });
    assert.deepEqual((await spied.next(() => true)).connections, {});
    await pod.client.request();
    spied.stop();
    assert.deepEqual(
      spied.events.flatMap(({ connections }) => Object.keys(connections)),
      [],
    );
  } finally {
    await client.close();
  }
  assert.deepEqual(await ipDump(pod.pod.netns), before);
  await pod.client.close();
}

async function thousandFiles(scene: Scene): Promise<void> {
  const pod = await scene.pod();
  const client = scene.direct(pod);
  const before = openFiles("file").length;
  const folder = `${scene.sandbox.folder}/many`;
  mkdirSync(folder);
  const files = Array.from({ length: 1000 }, (_, number) => openSync(`${folder}/${number}`, "w")).map((fd) =>
    Fd.own(fd),
  );
  try {
    await client.request({ fds: [...files, pod.pod.netns.fd] });
  } finally {
    for (const file of files) file.close();
  }
  await client.close();
  await client.hangUp();
  await eventually(
    () => openFiles("file").length,
    (count) => count === before,
  );
  await scene.serves(pod);
}

async function garbage(scene: Scene): Promise<void> {
  const pod = await scene.pod();
  for (const bytes of [
    "GET / HTTP/1.1\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\x16\x03\x01\xff\xff",
    "\0".repeat(70_000),
  ]) {
    const socket = dial(scene);
    socket.write(bytes);
    await scene.serves(pod);
    socket.destroy();
  }
}

async function halfOpen(scene: Scene): Promise<void> {
  const [pod, newcomer] = [await scene.pod(), await scene.pod()];
  await pod.client.request();
  const before = openFiles("socket").length;
  const sockets = Array.from({ length: 200 }, () => dial(scene));
  for (const [number, socket] of sockets.entries()) if (number % 2 === 0) socket.write("\x16\x03\x01");
  try {
    await pod.client.request(); // who was there before
    const client = scene.direct(newcomer); // who comes now
    await client.request();
    await client.close();
    await client.hangUp();
  } finally {
    for (const socket of sockets) socket.destroy();
  }
  await eventually(
    () => openFiles("socket").length,
    (count) => count <= before,
  );
  await pod.client.close();
}

function dial({ forwarder }: Scene): Socket {
  const socket = connect(forwarder.url.replace("unix://", ""));
  socket.on("error", () => {}); // being hung up on is what it deserves
  return socket;
}

function manager({ sandbox }: Scene, options: { readonly tokenLifetimeMs?: number } = {}): Actor {
  return createActor({ spire: sandbox.spire, spiffeId: sandbox.spire.idOf("nsmgr"), clock, ...options });
}

function headersFor({ sandbox }: Scene, actor: Actor): Readonly<Record<string, string>> {
  return headersOfToken(actor.token(sandbox.spire.idOf("forwarder")));
}
