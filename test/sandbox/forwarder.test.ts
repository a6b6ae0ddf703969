import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { pictureOf } from "../../sandbox/demo/node-picture.ts";
import { eventually } from "../../sandbox/demo/steps.ts";
import { pingUntilAnswered } from "../../sandbox/ping.ts";
import { SANDBOX_FORWARDER, SANDBOX_RESOURCE, Sandbox, type SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import type { NetworkServiceRequest } from "../../src/gen/networkservice_pb.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";

const LIMIT_MS = 10_000;

/** A node with a forwarder that serves; undefined where the machine has no links to give. */
async function startNode(t: TestContext): Promise<Sandbox | undefined> {
  if (!needs(t, "netns", "veth", "bridge")) return undefined;
  const sandbox = await Sandbox.start({ machine: { realLinks: true }, log: silentLog, clock: systemClock });
  t.after(() => sandbox.stop());
  await sandbox.startForwarder();
  await kubeletKnows(sandbox, 16);
  return sandbox;
}

async function kubeletKnows(sandbox: Sandbox, count: number): Promise<void> {
  const signal = AbortSignal.timeout(LIMIT_MS);
  await sandbox.kubelet.until(
    SANDBOX_RESOURCE,
    (devices) => devices.filter((one) => one.healthy).length === count,
    signal,
  );
}

async function isReached(sandbox: Sandbox, { pod }: SandboxPod): Promise<boolean> {
  const [own = ""] = sandbox.endpoint.ipams.map((ipam) => ipam.own.split("/")[0] ?? "");
  return (await pingUntilAnswered({ netns: pod.netns, to: own, tries: 5, clock: systemClock })) !== undefined;
}

/** Addresses of the functions whose devices are not in the host's namespace. */
async function functionsAway(sandbox: Sandbox): Promise<readonly string[]> {
  const vfs = (await pictureOf(sandbox.machine)).flatMap((pf) => pf.vfs);
  return vfs.filter(({ netdev }) => netdev === undefined).map(({ address }) => address);
}

test("the forwarder gives sixteen pods at once a function each", { timeout: 60_000 }, async (t) => {
  const sandbox = await startNode(t);
  if (sandbox === undefined) return;
  const pods: SandboxPod[] = [];
  for (let at = 0; at < 16; at++) pods.push(await sandbox.startPod(`client-${at}`));
  const connections = await Promise.all(pods.map(({ client }) => client.request()));
  const addresses = connections.map(({ mechanism }) => mechanism?.parameters["pciAddress"]);
  assert.equal(new Set(addresses).size, 16);
  assert.deepEqual([...addresses].sort(), [...(await functionsAway(sandbox))].sort());
  for (const pod of pods) assert.ok(await isReached(sandbox, pod), pod.name);
  await Promise.all(pods.map(({ client }) => client.close()));
  assert.deepEqual(await functionsAway(sandbox), []);
});

test("the forwarder registers again with an NSMgr that died, and its connections go on", {
  timeout: 60_000,
}, async (t) => {
  const sandbox = await startNode(t);
  if (sandbox === undefined) return;
  const pod = await sandbox.startPod("client-1");
  const before = await pod.client.request();
  await sandbox.nsmgr.stop({ forget: true });
  assert.ok(await isReached(sandbox, pod));
  await sandbox.nsmgr.start();
  await sandbox.endpoint.enlist();
  await eventually(systemClock, {
    expected: "the forwarder in the registry again",
    limitMs: LIMIT_MS,
    look: () => sandbox.nsmgr.registry.endpoints.get(SANDBOX_FORWARDER),
    seen: () => "it is not",
  });
  const after = await pod.client.request();
  assert.deepEqual(after.mechanism, before.mechanism);
  assert.ok(await isReached(sandbox, pod));
  await pod.client.close();
});

test("the forwarder follows a new SVID and a new root of the trust domain", { timeout: 60_000 }, async (t) => {
  const sandbox = await startNode(t);
  if (sandbox === undefined) return;
  const pod = await sandbox.startPod("client-1");
  await pod.client.request();
  sandbox.spire.replaceAuthority({ keepOld: true });
  await systemClock.sleep(200);
  await pod.client.request();
  const other = await sandbox.startPod("client-2");
  await other.client.request();
  assert.ok(await isReached(sandbox, other));
  await pod.client.close();
  await other.client.close();
});

test("the forwarder offers its functions to a kubelet that has started again", { timeout: 60_000 }, async (t) => {
  const sandbox = await startNode(t);
  if (sandbox === undefined) return;
  await sandbox.kubelet.restart();
  await kubeletKnows(sandbox, 16);
  const pod = await sandbox.startPod("client-1");
  await pod.client.request();
  await pod.client.close();
});

test("the forwarder brings a function home when the endpoint refuses, and gives it at the next try", {
  timeout: 60_000,
}, async (t) => {
  const sandbox = await startNode(t);
  if (sandbox === undefined) return;
  const before = await pictureOf(sandbox.machine);
  const pod = await sandbox.startPod("client-1");
  sandbox.endpoint.knobs.failTimes = 1;
  await assert.rejects(pod.client.request(), /was told to fail/);
  assert.deepEqual(await pictureOf(sandbox.machine), before);
  assert.deepEqual(await pod.pod.links(), []);
  await pod.client.request();
  assert.ok(await isReached(sandbox, pod));
  await pod.client.close();
});

test("a connection outlives the forwarder that made it, and the next one closes it", { timeout: 60_000 }, async (t) => {
  const sandbox = await startNode(t);
  if (sandbox === undefined) return;
  const before = await pictureOf(sandbox.machine);
  const pod = await sandbox.startPod("client-1");
  const connection = await pod.client.request();
  await sandbox.stopForwarder();
  assert.ok(await isReached(sandbox, pod));
  await sandbox.startForwarder();
  assert.ok(await isReached(sandbox, pod));
  const after = await pod.client.request();
  assert.equal(after.mechanism?.parameters["pciAddress"], connection.mechanism?.parameters["pciAddress"]);
  assert.ok(await isReached(sandbox, pod));
  await pod.client.close();
  assert.deepEqual(await pictureOf(sandbox.machine), before);
});

test("another identity can neither refresh nor close a pod's connection", { timeout: 60_000 }, async (t) => {
  const sandbox = await startNode(t);
  if (sandbox === undefined) return;
  const pod = await sandbox.startPod("client-1");
  const connection = await pod.client.request();
  const thief = sandbox.directClient("thief");
  const takeOver = {
    alter(request: NetworkServiceRequest) {
      const victim = connection.path?.pathSegments[2];
      if (victim) request.connection?.path?.pathSegments.push(victim); // its id names the connection at the forwarder
    },
  };
  await assert.rejects(thief.request(takeOver), { code: "PERMISSION_DENIED" });
  await thief.close(takeOver).catch(() => {});
  assert.ok(await isReached(sandbox, pod));
  await pod.client.close();
});
