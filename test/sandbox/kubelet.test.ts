// What kubelet does and says, from the side of the pods: nothing that restarts or fails loses a VF or gives one twice.
import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { KubeletDevice } from "../../sandbox/kubelet/kubelet.ts";
import type { ListedPod } from "../../sandbox/kubelet/pod-resources.ts";
import { SANDBOX_RESOURCE, Sandbox, type SandboxOptions } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import type { Forwarder } from "../../src/forwarder.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";
import { eventually } from "./scenes/story.ts";

const SIBLING = "worker.domain/intel";
const POLL_MS = 100;
/** So many questions take longer than the grace, which is two intervals. */
const GRACE_CALLS = 5;

async function startNode(t: TestContext, options: Partial<SandboxOptions> = {}): Promise<Sandbox> {
  const sandbox = await Sandbox.start({
    machine: { vfsPerPf: 2 },
    settings: { resourcePollTimeoutMs: POLL_MS },
    log: silentLog,
    clock: systemClock,
    ...options,
  });
  t.after(() => sandbox.stop());
  return sandbox;
}

const healthy = (devices: readonly KubeletDevice[]) => devices.filter((one) => one.healthy).length;

/** Waits until kubelet has so many healthy devices of a resource. */
async function offered(sandbox: Sandbox, resource: string, count: number): Promise<void> {
  const seen = () => healthy(sandbox.kubelet.devices.value?.get(resource) ?? []);
  await eventually(seen, (now) => now === count);
}

/** Kubelet has been asked since, so many times, and its last answer has been taken in. */
async function listedAgain({ kubelet: { podResources } }: Sandbox, times = 1): Promise<void> {
  const before = podResources.calls;
  await eventually(
    () => podResources.calls,
    (calls) => calls > before + times,
  );
}

/** A token that no pod has would have been free for a while. */
const graceIsOver = (sandbox: Sandbox) => listedAgain(sandbox, GRACE_CALLS);

const states = ({ node }: Forwarder) => node.inventory.snapshot().map(({ state }) => state);
const reserved = (forwarder: Forwarder) => states(forwarder).filter((state) => state === "reserved").length;

test("a token is reserved at Allocate, and free some time after its pod", async (t) => {
  const sandbox = await startNode(t);
  const forwarder = await sandbox.startForwarder();
  await offered(sandbox, SIBLING, 4);
  await sandbox.kubelet.allocate({ pod: "web", resource: SANDBOX_RESOURCE });
  await offered(sandbox, SIBLING, 3);
  await graceIsOver(sandbox);
  assert.equal(reserved(forwarder), 1);
  sandbox.kubelet.free("web");
  await offered(sandbox, SIBLING, 4);
  assert.deepEqual(states(forwarder), ["idle", "idle", "idle", "idle"]);
});

test("an init container keeps its token, which no list names", async (t) => {
  const sandbox = await startNode(t);
  const forwarder = await sandbox.startForwarder();
  await offered(sandbox, SANDBOX_RESOURCE, 4);
  await sandbox.kubelet.allocate({ pod: "web", resource: SANDBOX_RESOURCE, isInit: true });
  await graceIsOver(sandbox);
  assert.equal(reserved(forwarder), 1);
});

test("nothing is freed while kubelet's list fails or is wrong, and its streams stay", async (t) => {
  const sandbox = await startNode(t);
  const forwarder = await sandbox.startForwarder();
  const { kubelet } = sandbox;
  await offered(sandbox, SIBLING, 4);
  for (const pod of ["web", "gone"]) await kubelet.allocate({ pod, resource: SANDBOX_RESOURCE });
  await offered(sandbox, SIBLING, 2);
  await listedAgain(sandbox);
  const { registrations } = kubelet;
  for (const mood of ["failing", "limited", "empty"] as const) {
    kubelet.podResources.mood = mood;
    if (mood === "failing") kubelet.free("gone");
    await graceIsOver(sandbox);
    assert.equal(reserved(forwarder), 2, mood);
    assert.deepEqual(
      forwarder.health.conditions().map(({ code }) => code),
      ["pod-resources-unknown"],
      mood,
    );
  }
  await kubelet.podResources.stop();
  await hungUpOn(join(sandbox.folder, "pods", "kubelet.sock"), GRACE_CALLS);
  assert.equal(reserved(forwarder), 2);
  kubelet.podResources.mood = "well";
  await kubelet.podResources.start();
  await offered(sandbox, SIBLING, 3);
  assert.equal(kubelet.registrations, registrations);
  kubelet.podResources.mood = "silent";
  kubelet.free("web");
  const { calls } = kubelet.podResources;
  await eventually(
    () => kubelet.podResources.calls,
    (now) => now > calls,
  );
  assert.equal(reserved(forwarder), 1);
});

/** Another program has the socket, and hangs up on its callers, so many times. */
async function hungUpOn(path: string, times: number): Promise<void> {
  let calls = 0;
  const foreign = createServer((socket) => {
    calls += 1;
    socket.on("error", () => {}).destroy();
  });
  await once(foreign.listen(path), "listening");
  await eventually(
    () => calls,
    (now) => now >= times,
  );
  await new Promise((resolve) => foreign.close(resolve));
}

const device = (resourceName: string, ...deviceIds: string[]) => ({ resourceName, deviceIds });

/** Lists that are not as they should be; the pod has the token. */
const oddLists: readonly (readonly [string, (pods: readonly ListedPod[], token: string) => readonly ListedPod[]])[] = [
  ["the same id at two pods", (pods) => [...pods, ...pods.map((pod) => ({ ...pod, name: "twin" }))]],
  [
    "ids of other plugins",
    (pods) => [...pods, podWith(device("nvidia.com/gpu", "GPU-1"), device(SANDBOX_RESOURCE, "GPU-2", "../x"))],
  ],
  ["an id of ours under a sibling's name", (pods, token) => [...pods, podWith(device(SIBLING, token))]],
  ["a pod twice, and one without containers", (pods) => [...pods, ...pods, { ...podWith(), containers: [] }]],
];

function podWith(...devices: ListedPod["containers"][number]["devices"]): ListedPod {
  return { name: "other", namespace: "default", containers: [{ name: "app", devices: [...devices] }] };
}

for (const [what, alter] of oddLists) {
  test(`a list with ${what} frees nothing, and takes nothing from any pod`, async (t) => {
    const sandbox = await startNode(t);
    const forwarder = await sandbox.startForwarder();
    const { kubelet } = sandbox;
    await offered(sandbox, SIBLING, 4);
    const { envs } = await kubelet.allocate({ pod: "web", resource: SANDBOX_RESOURCE });
    const token = envs[`NSM_SRIOV_TOKENS_${SANDBOX_RESOURCE}`] ?? assert.fail("no token");
    kubelet.podResources.alter = (pods) => alter(pods, token);
    await graceIsOver(sandbox);
    assert.equal(reserved(forwarder), 1);
    await offered(sandbox, SIBLING, 3);
    kubelet.podResources.alter = (pods) => pods;
    kubelet.free("web");
    await offered(sandbox, SIBLING, 4);
  });
}

test("a pod that is missing from one answer keeps its token", async (t) => {
  const sandbox = await startNode(t);
  const forwarder = await sandbox.startForwarder();
  const { kubelet } = sandbox;
  await offered(sandbox, SIBLING, 4);
  await kubelet.allocate({ pod: "web", resource: SANDBOX_RESOURCE });
  await listedAgain(sandbox);
  let missing = 0;
  kubelet.podResources.alter = (pods) => (missing++ === 0 ? [podWith()] : pods);
  await listedAgain(sandbox, 2);
  assert.ok(missing > 1);
  assert.equal(reserved(forwarder), 1);
});

const oddCheckpoints: readonly (readonly [string, (path: string, text: string) => void])[] = [
  ["missing", () => {}],
  ["damaged", (path, text) => writeFileSync(path, text.slice(0, -20))],
  ["no JSON at all", (path) => writeFileSync(path, randomBytes(4096))],
  ["a link that leads nowhere", (path) => symlinkSync("/nonexistent/checkpoint", path)],
];
for (const [what, spoil] of oddCheckpoints) {
  test(`a forwarder that starts beside a checkpoint that is ${what} goes by kubelet's list`, async (t) => {
    const sandbox = await startNode(t);
    await sandbox.startForwarder();
    const { kubelet } = sandbox;
    await offered(sandbox, SIBLING, 4);
    await kubelet.allocate({ pod: "web", resource: SANDBOX_RESOURCE });
    await listedAgain(sandbox);
    await sandbox.stopForwarder();
    const path = join(sandbox.forwarderSettings.devicePluginPath, "kubelet_internal_checkpoint");
    const text = readFileSync(path, "utf8");
    rmSync(path);
    spoil(path, text);
    const second = await sandbox.startForwarder();
    await offered(sandbox, SIBLING, 3);
    assert.equal(reserved(second), 1);
    rmSync(path, { recursive: true, force: true });
  });
}

test("a forwarder that starts again offers nothing that a pod has, in either order of restarts", async (t) => {
  const sandbox = await startNode(t);
  const { kubelet } = sandbox;
  await sandbox.startForwarder();
  await offered(sandbox, SIBLING, 4);
  const { ids } = await kubelet.allocate({ pod: "web", resource: SANDBOX_RESOURCE });
  await offered(sandbox, SIBLING, 3);
  const counts: number[] = [];
  kubelet.devices.onChange((known) => {
    const devices = known.get(SIBLING) ?? [];
    if (devices.length > 0) counts.push(healthy(devices));
  });
  for (const order of ["forwarder", "kubelet first", "forwarder first"]) {
    if (order === "kubelet first") await kubelet.restart();
    await sandbox.stopForwarder();
    if (order === "forwarder first") await kubelet.restart();
    const forwarder = await sandbox.startForwarder();
    await offered(sandbox, SANDBOX_RESOURCE, 4);
    await offered(sandbox, SIBLING, 3);
    assert.equal(forwarder.node.inventory.resourceOf(ids[0] ?? ""), SANDBOX_RESOURCE, order);
    await graceIsOver(sandbox);
    assert.equal(reserved(forwarder), 1, order);
  }
  assert.ok(Math.max(...counts) <= 3, `offered more than there was: ${counts}`);
});

test("ids of an older forwarder are kept for their pods", async (t) => {
  const sandbox = await startNode(t);
  const id = `sriov-${randomUUID()}`;
  sandbox.kubelet.remember("old", SANDBOX_RESOURCE, [id]);
  const forwarder = await sandbox.startForwarder();
  await offered(sandbox, SIBLING, 3);
  assert.equal(forwarder.node.inventory.resourceOf(id), SANDBOX_RESOURCE);
  sandbox.kubelet.free("old");
  await offered(sandbox, SIBLING, 4);
});

test("a pod that dies without a Close gives its VF back", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const sandbox = await startNode(t, { machine: { vfsPerPf: 2, realLinks: true } });
  const forwarder = await sandbox.startForwarder();
  await offered(sandbox, SANDBOX_RESOURCE, 4);
  const pod = await sandbox.startPod("client-1");
  await pod.client.request();
  await graceIsOver(sandbox);
  assert.equal(states(forwarder).filter((state) => state === "ready").length, 1);
  sandbox.kubelet.free("client-1");
  await eventually(
    () => states(forwarder),
    (now) => now.every((state) => state === "idle"),
  );
  assert.deepEqual(await pod.pod.links(), []);
  assert.equal(forwarder.nsm.connectionCount, 0);
});

test("a token that kubelet gives to the next pod before the end of the last is known ends the connection of the last", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const machine = { pfs: 1, vfsPerPf: 1, realLinks: true };
  // No list of pods comes in time to say that the first one has ended.
  const sandbox = await startNode(t, { machine, settings: { resourcePollTimeoutMs: 600_000 } });
  const forwarder = await sandbox.startForwarder();
  await offered(sandbox, SANDBOX_RESOURCE, 1);
  const pod = await sandbox.startPod("client-1");
  await pod.client.request();
  assert.deepEqual(states(forwarder), ["ready"]);
  sandbox.kubelet.free("client-1");
  await sandbox.kubelet.allocate({ pod: "client-2", resource: SANDBOX_RESOURCE });
  await eventually(
    () => states(forwarder),
    (now) => now.every((state) => state === "reserved"),
  );
  assert.deepEqual(await pod.pod.links(), []);
  assert.equal(forwarder.nsm.connectionCount, 0);
});

test("a pod that died while no forwarder ran is noticed, though its connection was taken up", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const sandbox = await startNode(t, { machine: { vfsPerPf: 2, realLinks: true } });
  await sandbox.startForwarder();
  await offered(sandbox, SANDBOX_RESOURCE, 4);
  const pod = await sandbox.startPod("client-1");
  await pod.client.request();
  await sandbox.stopForwarder();
  sandbox.kubelet.free("client-1");
  const forwarder = await sandbox.startForwarder();
  assert.equal(states(forwarder).filter((state) => state === "ready").length, 1);
  await offered(sandbox, SANDBOX_RESOURCE, 4);
  // Kubelet's file names the pod until it is written again.
  await sandbox.kubelet.allocate({ pod: "client-2", resource: SIBLING });
  await eventually(
    () => states(forwarder),
    (now) => !now.includes("ready"),
  );
});

test("two physical functions with different domains and capabilities are counted in one inventory", async (t) => {
  const pf = (address: string, domains: string, capabilities: string, numVfs: number) => `
  ${address}:
    pfKernelDriver: igb
    vfKernelDriver: igbvf
    serviceDomains: [${domains}]
    capabilities: [${capabilities}]
    numVfs: ${numVfs}`;
  const pfConfigText = `physicalFunctions:${pf("0000:01:00.0", "d1", "intel, 10G", 1)}${pf("0000:02:00.0", "d1, d2", "intel, 20G", 3)}\n`;
  const sandbox = await startNode(t, { machine: { vfsPerPf: 3, numVfs: 0 }, pfConfigText });
  await sandbox.startForwarder();
  const counts = async (...desired: readonly number[]) => {
    const names = ["d1/intel", "d1/10G", "d1/20G", "d2/intel", "d2/20G"];
    for (const [at, name] of names.entries()) await offered(sandbox, name, desired[at] ?? 0);
  };
  await counts(4, 1, 3, 3, 3);
  for (const pod of ["a", "b", "c"]) await sandbox.kubelet.allocate({ pod, resource: "d2/20G" });
  await counts(1, 1, 0, 0, 3);
  await listedAgain(sandbox);
  await assert.rejects(sandbox.kubelet.allocate({ pod: "d", resource: "d2/20G" }), /0 of 3 are available/);
  sandbox.kubelet.free("b");
  await counts(2, 1, 1, 1, 3);
});
