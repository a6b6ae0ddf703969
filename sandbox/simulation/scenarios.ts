// Stories of a node, each of which must end in agreement whatever its seed.
import assert from "node:assert/strict";
import type { Connection } from "../../src/gen/connection_pb.ts";
import { diesAfter, hasDied } from "./deaths.ts";
import { insist, vfioPod } from "./pod-steps.ts";
import { TOKEN_LIFETIME_MS } from "./simulated-peers.ts";
import {
  FORWARDER_INDEX,
  OTHER_RESOURCE,
  type SimulatedPod,
  type Simulation,
  type SimulationOptions,
} from "./simulation.ts";
import { upgrades } from "./upgrade-story.ts";

/** Answers with the pods whose connections stand at its end. */
export type Story = (simulation: Simulation) => Promise<readonly SimulatedPod[]>;

export interface Scenario extends Omit<SimulationOptions, "seed"> {
  readonly story: Story;
  /** Errors that it is right to log, by their events. */
  readonly errors?: readonly string[];
  /** So many times as many seeds as others: it has more places where it can end. */
  readonly seedsTimes?: number;
}

/** Of the one after a death: its disk may be torn, and a pod's namespace comes with the next call of its client only. */
const AFTER_DEATH = ["journal-damaged", "teardown-failed"];

/** By their sentences. */
export const scenarios: Readonly<Record<string, Scenario>> = {
  "KERNEL: Request, refresh and Close": { story: kernel },
  "VFIO: Request, use and Close": { story: vfio },
  "NOOP passes through": { story: noop },
  "a forwarder that dies in a Request, and the next one": { story: diesInRequest, errors: AFTER_DEATH, seedsTimes: 2 },
  "a forwarder that dies in a Close, and the next one": { story: diesInClose, errors: AFTER_DEATH },
  "kubelet restarts": { story: kubeletRestarts },
  "NSMgr restarts and has forgotten everything": { story: managerRestarts },
  "SVIDs are rotated": { story: rotation },
  "an endpoint refuses, the next one serves": { story: nextCandidate, endpoints: ["nse-1", "nse-2"] },
  "a pod is deleted without a Close": { story: podDeleted },
  "a connection that is not refreshed": { story: expiry },
  "upgrades in Requests, Closes and restores: by SIGTERM, by death, and by death while it stops": {
    story: upgrades,
    errors: AFTER_DEATH,
    vfs: 6,
  },
  "ten clients at two VFs, Requests while others' Closes are under way": { story: crowd, vfs: 2 },
};

async function kernel(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const [pod, other] = [await simulation.startPod("app"), await simulation.startPod("other")];
  const first = vfOf(await pod.client.request());
  assert.equal(vfOf(await pod.client.request()), first);
  await pod.client.close();
  await other.client.request();
  return [other];
}

async function vfio(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const [pod, other] = [await vfioPod(simulation, "app"), await vfioPod(simulation, "other")];
  await pod.client.request();
  const close = simulation.openVfio(pod);
  await pod.client.request();
  const closing = pod.client.close();
  await simulation.node.clock.sleep(simulation.seed.draw("the use lasts", 2_000));
  close();
  await closing;
  await other.client.request();
  return [other];
}

async function noop(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const [pod, kept] = [await noopPod(simulation, "app"), await noopPod(simulation, "kept")];
  await Promise.all([pod.client.request(), kept.client.request()]);
  await pod.client.close();
  return [kept];
}

async function diesInRequest(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const pods = [await simulation.startPod("kernel"), await vfioPod(simulation, "vfio")];
  diesAfter(simulation, simulation.seed.draw("dies at", 120));
  const requests = pods.map(({ client }) => client.request({ timeoutMs: 15_000 }).catch(() => undefined));
  await nextForwarder(simulation);
  // What a client was answered the next one knows, before its client asks again.
  const known = simulation.forwarder?.nsm.connections().filter(({ phase }) => phase === "established") ?? [];
  for (const { client } of pods) {
    const id = client.connection?.path?.pathSegments[FORWARDER_INDEX]?.id;
    if (id !== undefined)
      assert.ok(
        known.some((one) => one.pathId === id),
        `${id} was answered and is not known`,
      );
  }
  await Promise.all(requests);
  for (const { client } of pods) await insist(simulation, () => client.request({ timeoutMs: 15_000 }));
  return pods;
}

async function diesInClose(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const pods = [await simulation.startPod("kernel"), await vfioPod(simulation, "vfio")];
  const bystander = await simulation.startPod("bystander");
  for (const { client } of [...pods, bystander]) await client.request();
  diesAfter(simulation, simulation.seed.draw("dies at", 60));
  const closes = pods.map(({ client }) => client.close({ timeoutMs: 15_000 }).catch(() => {}));
  await Promise.all([...closes, nextForwarder(simulation)]);
  for (const { client } of pods) {
    await insist(simulation, async () => (client.connection ? client.close({ timeoutMs: 15_000 }) : undefined));
  }
  await insist(simulation, () => bystander.client.request());
  return [bystander];
}

async function kubeletRestarts(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const { seed, vfCount } = simulation;
  const { kubelet } = simulation.peers;
  const { clock } = simulation.node;
  const [pod, waiting] = [await simulation.startPod("app"), await simulation.startPod("waiting")];
  await clock.sleep(seed.draw("kubelet lists its pods before", 5_000));
  const requested = pod.client.request();
  await clock.sleep(seed.draw("kubelet stops", 100));
  await kubelet.stop();
  await clock.sleep(seed.draw("kubelet is away", 5_000));
  kubelet.podResources.mood = "empty"; // it has not read its pods yet
  await kubelet.start();
  await requested;
  await simulation.offers(vfCount);
  const later = await simulation.startPod("later");
  await clock.sleep(seed.draw("kubelet knows no pod", 300_000));
  assert.equal(simulation.healthyDevices(OTHER_RESOURCE), vfCount - 3, "a pod that waits has lost its token");
  kubelet.podResources.mood = "well";
  for (const { client } of [later, waiting]) await client.request();
  await pod.client.close();
  return [later, waiting];
}

async function managerRestarts(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const { nsmgr, endpoints } = simulation.peers;
  const { clock } = simulation.node;
  const pod = await simulation.startPod("app");
  await pod.client.request();
  await nsmgr.stop({ forget: true });
  await clock.sleep(simulation.seed.draw("the manager is away", 10_000));
  await nsmgr.start();
  for (const endpoint of endpoints) await endpoint.enlist();
  await insist(simulation, () => pod.client.request({ timeoutMs: 15_000 }));
  const later = await simulation.startPod("later");
  await insist(simulation, () => later.client.request({ timeoutMs: 15_000 }));
  await pod.client.close();
  return [later];
}

async function rotation(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const { spire } = simulation.peers;
  const { clock } = simulation.node;
  const pods = [await simulation.startPod("app"), await vfioPod(simulation, "vfio")];
  const requests = pods.map((pod) => requestWithNewToken(simulation, pod));
  await clock.sleep(simulation.seed.draw("rotated after", 150));
  spire.rotate(spire.idOf("forwarder"));
  await Promise.all(requests);
  spire.replaceAuthority({ keepOld: true });
  const refreshes = pods.map((pod) => requestWithNewToken(simulation, pod));
  await clock.sleep(simulation.seed.draw("rotated again after", 50));
  spire.rotate();
  await Promise.all(refreshes);
  return pods;
}

async function nextCandidate(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  for (const { knobs } of simulation.peers.endpoints.slice(0, 1)) knobs.failTimes = 1;
  const pods = [await simulation.startPod("app"), await vfioPod(simulation, "vfio")];
  await Promise.all(pods.map(({ client }) => client.request()));
  return pods;
}

async function podDeleted(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const pods = [await simulation.startPod("kernel"), await vfioPod(simulation, "vfio")];
  await Promise.all(pods.map(({ client }) => client.request()));
  await Promise.all(
    pods.map(async (pod, index) => {
      await simulation.node.clock.sleep(simulation.seed.draw(`pod ${index} ends`, 1_000));
      await simulation.endPod(pod);
    }),
  );
  return [];
}

async function expiry(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const pods = [
    await simulation.startPod("kernel"),
    await vfioPod(simulation, "vfio"),
    await noopPod(simulation, "noop"),
  ];
  await Promise.all(pods.map(({ client }) => client.request()));
  await simulation.node.clock.sleep(TOKEN_LIFETIME_MS);
  return [];
}

/**
 * A VF is asked for while it is being restored: by the client that is started again in its pod, and by the next pod, to which kubelet gives
 * the device as soon as the pod before is to end.
 */
async function crowd(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const { seed, peers } = simulation;
  const { clock } = simulation.node;
  let devices = simulation.vfCount;
  const closes: Promise<void>[] = [];
  const live = async (name: string) => {
    while (devices === 0) await clock.sleep(5);
    devices -= 1;
    const mechanism = seed.draw(`${name} is VFIO`, 2) === 1 ? "VFIO" : "KERNEL";
    const pod = await simulation.startPod(name, { mechanism });
    const close = await useVf(simulation, pod, `${name} at first`);
    const again = useVf(simulation, simulation.restartClient(pod, { mechanism }), `${name} again`);
    await clock.sleep(seed.draw(`${name} is closed after`, 80));
    closes.push(close());
    const closeAgain = await again;
    closes.push(closeAgain().then(() => simulation.endPod(pod)));
    peers.kubelet.free(name);
    devices += 1;
  };
  await Promise.all(["one", "two", "three", "four", "five"].map(live));
  await Promise.all(closes);
  return [];
}

/** Until it is to be closed. The answer closes it, and the pod uses its VF some time longer. */
async function useVf(simulation: Simulation, pod: SimulatedPod, name: string): Promise<() => Promise<void>> {
  const { seed, node } = simulation;
  const { mechanism } = await insist(simulation, () => pod.client.request(), seed.draw(`${name} asks again after`, 20));
  const stopUse = mechanism?.type === "VFIO" ? simulation.openVfio(pod) : () => {};
  await node.clock.sleep(seed.draw(`${name} lives`, 100));
  return async () => {
    const closing = pod.client.close();
    await node.clock.sleep(seed.draw(`${name} is used on`, 60));
    stopUse();
    await closing;
  };
}

function noopPod(simulation: Simulation, name: string): Promise<SimulatedPod> {
  return simulation.startPod(name, { mechanism: "NOOP", parameters: {} });
}

/** Starts another one when this one has died, or has done all that it had to do; that may die in its start, too. */
async function nextForwarder(simulation: Simulation): Promise<void> {
  const { seed } = simulation;
  const { clock } = simulation.node;
  await hasDied(simulation, 20_000);
  if (simulation.process?.isOver === false) simulation.kill();
  for (let deaths = seed.draw("more deaths", 3); deaths > 0; deaths--) {
    await clock.sleep(seed.draw(`comes back ${deaths}`, 3_000));
    diesAfter(simulation, seed.draw(`dies again ${deaths}`, 100));
    void simulation.startForwarder().catch(() => {}); // it does not say that it has died
    await hasDied(simulation, 2_000);
    if (simulation.process?.isOver === false) simulation.kill();
  }
  await clock.sleep(seed.draw("comes back for good", 3_000));
  await simulation.startForwarder();
  await simulation.offers(simulation.vfCount);
}

/**
 * A client signs with its newest key, also where the connection was dialled before the rotation: that one call is refused, and asked again as
 * NSM's client does. What others have signed must hold.
 */
async function requestWithNewToken(simulation: Simulation, { name, client }: SimulatedPod): Promise<void> {
  await client.request().catch(async (error: unknown) => {
    if (!String(error).includes(`/pod/${name}: Error: signature verification failed`)) throw error;
    await simulation.node.clock.sleep(1_000);
    await client.request();
  });
}

function vfOf({ mechanism }: Connection): string {
  return mechanism?.parameters["pciAddress"] ?? "";
}
