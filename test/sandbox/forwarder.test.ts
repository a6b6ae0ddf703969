import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { pictureOf } from "../../sandbox/demo/node-picture.ts";
import { pingUntilAnswered } from "../../sandbox/network/ping.ts";
import { SANDBOX_RESOURCE, Sandbox, type SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import type { NetworkServiceRequest } from "../../src/gen/networkservice_pb.ts";
import { type Log, silentLog } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";
import { withoutIndexes } from "./scenes/ip.ts";
import { eventually } from "./scenes/story.ts";

/** A node with a forwarder that serves; undefined where the machine has no links to give. */
async function startNode(t: TestContext, log: Log = silentLog): Promise<Sandbox | undefined> {
  if (!needs(t, "netns", "veth", "bridge")) return undefined;
  const sandbox = await Sandbox.start({ machine: { realLinks: true }, log, peerLog: silentLog, clock: systemClock });
  t.after(() => sandbox.stop());
  await sandbox.startForwarder();
  await kubeletKnows(sandbox, 16);
  return sandbox;
}

async function kubeletKnows(sandbox: Sandbox, count: number): Promise<void> {
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.filter((one) => one.healthy).length === count);
}

async function isReached(sandbox: Sandbox, { pod }: SandboxPod): Promise<boolean> {
  const [own = ""] = sandbox.endpoint.ipams.map((ipam) => ipam.own.split("/")[0] ?? "");
  return (await pingUntilAnswered({ netns: pod.netns, to: own, tries: 5, clock: systemClock })) !== undefined;
}

/** Each VF becomes what it was; each network device that a pod had is another one. */
async function isAgain({ machine }: Sandbox, before: unknown): Promise<void> {
  const desired = withoutIndexes(before);
  await eventually(
    async () => withoutIndexes(await pictureOf(machine)),
    (seen) => isDeepStrictEqual(seen, desired),
  );
}

/** Addresses of the VFs whose devices are not in the host's namespace. */
async function functionsAway(sandbox: Sandbox): Promise<readonly string[]> {
  const vfs = (await pictureOf(sandbox.machine)).flatMap((pf) => pf.vfs);
  return vfs.filter(({ netdev }) => netdev === undefined).map(({ address }) => address);
}

test("the forwarder gives sixteen pods at once a VF each", async (t) => {
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
  await eventually(
    () => functionsAway(sandbox),
    (away) => away.length === 0,
  );
});

test("the forwarder restores a VF when the endpoint refuses, and gives it at the next try", async (t) => {
  const sandbox = await startNode(t);
  if (sandbox === undefined) return;
  const before = await pictureOf(sandbox.machine);
  const pod = await sandbox.startPod("client-1");
  sandbox.endpoint.knobs.failTimes = 1;
  await assert.rejects(pod.client.request(), /was set to fail/);
  assert.deepEqual(await pictureOf(sandbox.machine), before);
  assert.deepEqual(await pod.pod.links(), []);
  await pod.client.request();
  assert.ok(await isReached(sandbox, pod));
  await pod.client.close();
});

test("a connection outlives the forwarder that made it, and the next one closes it", async (t) => {
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
  await isAgain(sandbox, before);
});

test("another identity can neither refresh nor close a pod's connection", async (t) => {
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
  // It would get a connection of its own with that id, and has sent no token.
  await assert.rejects(thief.request(takeOver), { code: "INVALID_ARGUMENT" });
  await assert.rejects(thief.close(takeOver), { code: "PERMISSION_DENIED" });
  assert.ok(await isReached(sandbox, pod));
  await pod.client.close();
});

test("a teardown that a stop overtakes goes to its end, at the endpoint and in the journal, and leaves the next forwarder nothing to do", async (t) => {
  const log = recordingLog();
  const sandbox = await startNode(t, log);
  if (sandbox === undefined) return;
  const before = await pictureOf(sandbox.machine);
  await sandbox.stopForwarder();
  const forwarder = await sandbox.startForwarder();
  await kubeletKnows(sandbox, 16);
  const pod = await sandbox.startPod("client-1");
  await pod.client.request();
  const [begun, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  sandbox.endpoint.knobs.atClose = async () => {
    begun.resolve();
    await held.promise;
  };
  const closing = pod.client.close().catch(() => {}); // its call is ended by the stop
  await begun.promise;
  let hasStopped = false;
  const stopping = sandbox.stopForwarder().then(() => {
    hasStopped = true;
  });
  await eventually(
    () => hasStopped || forwarder.stopping === "connections",
    (isSo) => isSo,
  );
  held.resolve();
  await Promise.all([stopping, closing]);
  const problems = [...log.of("journal-not-written"), ...log.of("endpoint-close-failed")];
  assert.deepEqual([problems, log.of("connection-ended").length], [[], 1]);
  sandbox.endpoint.knobs.atClose = undefined;
  const next = await sandbox.startForwarder();
  assert.equal(next.nsm.connectionCount, 0);
  await isAgain(sandbox, before);
});
