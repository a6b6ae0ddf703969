import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { inodeUrlOf } from "../../sandbox/nsm/passed-files.ts";
import { Pod } from "../../sandbox/pod/pod.ts";
import { SANDBOX_FORWARDER, SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import { State } from "../../src/gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../src/gen/networkservice_pb.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";

/** A node with real links, its forwarder serving. */
async function startNode(t: TestContext) {
  const log = recordingLog();
  const options = { machine: { realLinks: true }, log, peerLog: silentLog, clock: systemClock };
  const sandbox = await Sandbox.start(options);
  t.after(() => sandbox.stop());
  await sandbox.startForwarder();
  const desired = ({ healthy }: { readonly healthy: boolean }) => healthy;
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.some(desired));
  return { sandbox, log };
}

const hasLink = async (pod: Pod) => (await pod.link("nsm-1")) !== undefined;

test("a client that comes back in another namespace finds its interface there", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox } = await startNode(t);
  const { client, pod } = await sandbox.startPod("client-1");
  const first = await client.request();
  const restarted = new Pod("client-1 restarted");
  t.after(() => restarted.close());
  const inodeURL = inodeUrlOf(restarted.netns.id);
  const second = await client.request({
    fds: [restarted.netns.fd],
    alter: (request) => {
      delete request.connection?.mechanism;
      for (const preference of request.mechanismPreferences) preference.parameters["inodeURL"] = inodeURL;
    },
  });
  assert.deepEqual([await hasLink(pod), await hasLink(restarted)], [false, true]);
  assert.equal(second.mechanism?.parameters["pciAddress"], first.mechanism?.parameters["pciAddress"]);
  await client.close({ fds: [] });
  assert.equal(await hasLink(restarted), false);
});

test("a client that reselects gets a working interface again", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox } = await startNode(t);
  const { client, pod } = await sandbox.startPod("client-1");
  await client.request();
  await client.request({
    alter: ({ connection }) => {
      if (!connection) return;
      connection.state = State.RESELECT_REQUESTED;
      connection.networkServiceEndpointName = "";
      delete connection.mechanism;
    },
  });
  assert.ok(await hasLink(pod));
  assert.deepEqual([sandbox.endpoint.requests.length, sandbox.endpoint.closes.length], [2, 1]);
});

test("a Request that the endpoint answers with nonsense leaves the pod and the node as they were", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox } = await startNode(t);
  const { client, pod } = await sandbox.startPod("client-1");
  const before = await sandbox.machine.print();
  type Alter = NonNullable<typeof sandbox.endpoint.knobs.alterReply>;
  const nonsense: readonly Alter[] = [
    ({ path }) => void path?.pathSegments.splice(1),
    ({ context }) => void context?.ipContext?.srcIpAddrs.push("not an address"),
    ({ context }) => {
      if (context) context.MTU = 3;
    },
  ];
  for (const alterReply of nonsense) {
    sandbox.endpoint.knobs.alterReply = alterReply;
    await assert.rejects(client.request());
    assert.equal(await hasLink(pod), false);
    assert.equal(await sandbox.machine.print(), before);
  }
  assert.equal(sandbox.endpoint.closes.length, 3);
  sandbox.endpoint.knobs.alterReply = undefined;
  await client.request();
  assert.ok(await hasLink(pod));
});

test("eight pods ask at once and each gets its own virtual function", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox } = await startNode(t);
  const pods = [];
  for (let at = 0; at < 8; at++) pods.push(await sandbox.startPod(`client-${at}`));
  const answers = await Promise.all(pods.map(({ client }) => client.request()));
  const addresses = new Set(answers.map(({ mechanism }) => mechanism?.parameters["pciAddress"]));
  assert.equal(addresses.size, 8);
  assert.ok((await Promise.all(pods.map(({ pod }) => hasLink(pod)))).every(Boolean));
  await Promise.all(pods.map(({ client }) => client.close()));
  assert.ok((await Promise.all(pods.map(({ pod }) => hasLink(pod)))).every((link) => !link));
});

test("a token is good for one connection", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox } = await startNode(t);
  const [one, two] = [await sandbox.startPod("client-1"), await sandbox.startPod("client-2")];
  await one.client.request();
  const borrow = {
    alter: ({ mechanismPreferences }: NetworkServiceRequest) => {
      for (const preference of mechanismPreferences) preference.parameters["tokenID"] = one.tokenId;
    },
  };
  await assert.rejects(two.client.request(borrow), /holds its virtual function/);
  assert.deepEqual([await hasLink(one.pod), await hasLink(two.pod)], [true, false]);
});

test("the manager hears of an endpoint's death, and no token is ever logged", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, log } = await startNode(t);
  const { client, tokenId } = await sandbox.startPod("client-1");
  await client.request();
  const record = sandbox.nsmgr.watch(SANDBOX_FORWARDER);
  await sandbox.endpoint.die();
  await record.next(({ connections }) => Object.values(connections).some(({ state }) => state === State.DOWN));
  const reported = JSON.stringify(log.events, (_key, value) => (typeof value === "bigint" ? String(value) : value));
  assert.ok(!reported.includes(tokenId) && !reported.includes("eyJ"));
});
