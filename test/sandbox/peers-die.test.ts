// Whichever peer dies under the forwarder, it comes back to it by itself, and clients keep their traffic meanwhile.
import assert from "node:assert/strict";
import { ping } from "../../sandbox/network/ping.ts";
import { SANDBOX_FORWARDER, SANDBOX_RESOURCE, type SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { MonitorConnection, State } from "../../src/gen/connection_pb.ts";
import { RpcClient } from "../../src/rpc/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { eventually, runStories, type Scene } from "./scenes/story.ts";

runStories(
  "a forwarder",
  {},
  {
    "registers again with a manager that died and forgot everything": managerDies,
    "registers again when the registry drops it": registryForgets,
    "takes the new identity of a SPIRE agent that was away": agentDies,
    "survives an agent that takes every identity back for a while": agentRefuses,
    "offers its resources again to each kubelet that starts": kubeletRestarts,
    "reports that a connection is down when its endpoint dies, and serves it by another": endpointDies,
  },
);

async function managerDies(scene: Scene): Promise<void> {
  const { nsmgr } = scene.sandbox;
  const pod = await scene.pod();
  await pod.client.request();
  await withTraffic(pod, async () => {
    await nsmgr.stop({ forget: true });
    await eventually(
      () => scene.forwarder.health.ready.value,
      (isReady) => isReady === false,
    );
    await nsmgr.start();
    await eventually(
      () => nsmgr.registry.endpoints.get(SANDBOX_FORWARDER),
      (entry) => entry !== undefined,
    );
    await eventually(
      () => scene.forwarder.health.ready.value,
      (isReady) => isReady === true,
    );
  });
  // The registry does not know the endpoint any more; the connection does.
  await pod.client.request();
  await scene.sandbox.endpoint.die();
  await scene.sandbox.endpoint.start();
  await pod.client.request();
  await scene.serves(await scene.pod());
  await pod.client.close();
}

async function registryForgets(scene: Scene): Promise<void> {
  const { registry } = scene.sandbox.nsmgr;
  assert.ok(registry.removeEndpoint(SANDBOX_FORWARDER));
  await eventually(
    () => registry.endpoints.get(SANDBOX_FORWARDER),
    (entry) => entry !== undefined,
  );
  await scene.serves(await scene.pod());
}

async function agentDies(scene: Scene): Promise<void> {
  const { workload, spire } = scene.sandbox;
  const pod = await scene.pod();
  await pod.client.request();
  await withTraffic(pod, async () => {
    await workload.stop();
    spire.replaceAuthority({ keepOld: true });
    await workload.start();
    const fresh = spire.svid(spire.idOf("forwarder")).certPem;
    await eventually(
      () => shownCertificate(scene),
      (shown) => shown !== "" && fresh.includes(shown),
    );
  });
  await pod.client.request();
  await scene.serves(await scene.pod());
  await pod.client.close();
}

async function agentRefuses(scene: Scene): Promise<void> {
  const { workload, spire } = scene.sandbox;
  const before = await shownCertificate(scene);
  workload.issue();
  spire.rotate(spire.idOf("forwarder"));
  await scene.serves(await scene.pod()); // by the identity it has
  assert.equal(await shownCertificate(scene), before);
  workload.issue(spire.idOf("forwarder"));
  const fresh = spire.svid(spire.idOf("forwarder")).certPem;
  await eventually(
    () => shownCertificate(scene),
    (shown) => shown !== "" && fresh.includes(shown),
  );
}

async function kubeletRestarts(scene: Scene): Promise<void> {
  const { kubelet } = scene.sandbox;
  const pod = await scene.pod();
  await pod.client.request();
  await withTraffic(pod, async () => {
    for (let times = 0; times < 3; times += 1) {
      const before = kubelet.registrations;
      await kubelet.restart();
      const offered = await kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length === 4);
      assert.ok(offered.some(({ id, healthy }) => id === pod.tokenId && healthy));
      assert.equal(kubelet.registrations, before + 2); // two resources
    }
  });
  await scene.serves(await scene.pod());
  await pod.client.close();
}

async function endpointDies(scene: Scene): Promise<void> {
  const { endpoint, nsmgr } = scene.sandbox;
  const pod = await scene.pod();
  const first = await pod.client.request();
  const other = scene.endpoint("nse-2");
  await other.start();
  const record = nsmgr.watch(SANDBOX_FORWARDER);
  await endpoint.die();
  const id = first.path?.pathSegments[2]?.id ?? "";
  await record.next(({ connections }) => connections[id]?.state === State.DOWN);
  record.stop();
  assert.equal((await pod.pod.link("nsm-1"))?.up, true); // what it has stays its own
  // What the client's heal does: the same connection, any endpoint.
  const second = await pod.client.request({
    alter: ({ connection }) => {
      if (!connection) return;
      connection.state = State.RESELECT_REQUESTED;
      connection.networkServiceEndpointName = "";
    },
  });
  assert.equal(second.networkServiceEndpointName, "nse-2");
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  await pod.client.close();
  assert.equal(other.closes.length, 1);
  await other.close();
  await endpoint.start();
}

/** Whatever happens to the peers, no echo from the pod to the endpoint is lost. */
async function withTraffic(pod: SandboxPod, act: () => Promise<void>): Promise<void> {
  const to = pod.client.connection?.context?.ipContext?.dstIpAddrs[0]?.split("/")[0] ?? "";
  const netns = pod.pod.netns;
  const echo = () => ping({ netns, to, timeoutMs: 60_000, clock });
  assert.notEqual(await echo(), undefined); // a fresh link asks for its neighbour first, and again after a second
  const stop = new AbortController();
  const echoes: (number | undefined)[] = [];
  const traffic = async () => {
    do {
      echoes.push(await echo());
      await clock.sleep(5);
    } while (!stop.signal.aborted);
    echoes.push(await echo());
  };
  const running = traffic();
  try {
    await act();
  } finally {
    stop.abort();
    await running;
  }
  assert.ok(echoes.every((tookMs) => tookMs !== undefined));
}

/** What a newcomer is shown by the forwarder; empty when it is not let in, because its own new root is not known yet. */
async function shownCertificate({ sandbox, forwarder }: Scene): Promise<string> {
  const { tls, headers } = sandbox.actor("nsmgr");
  const client = new RpcClient({
    tls,
    log: silentLog,
    clock,
    dialTimeoutMs: 60_000,
    idleMs: 1000,
    credentials: headers,
  });
  try {
    const stream = client.stream(forwarder.url, MonitorConnection.method.monitorConnections, {}, {});
    const { peer } = await stream.connection;
    stream.cancel();
    return peer?.certificatePem.trim() ?? "";
  } catch {
    return "";
  } finally {
    await client.close();
  }
}
