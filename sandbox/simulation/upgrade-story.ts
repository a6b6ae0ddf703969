// Upgrades: each forwarder is another pod, with another name and another SPIFFE ID, and the manager behaves as the SDK's. Whatever was under way,
// who has a VF keeps it, under the same id and with the same endpoint, and no watcher hears of an end.
import assert from "node:assert/strict";
import { ConnectionEventType, State } from "../../src/gen/connection_pb.ts";
import type { MonitorRecord } from "../nsm/monitor-record.ts";
import type { EndpointEntry } from "../nsm/registry.ts";
import { diesAfter, hasDied } from "./deaths.ts";
import { insist, vfioPod } from "./pod-steps.ts";
import { TOKEN_LIFETIME_MS } from "./simulated-peers.ts";
import { FORWARDER_INDEX, type SimulatedPod, type Simulation } from "./simulation.ts";

const UPGRADES = 2;
/** So many steps a forwarder takes at most before it is to end, and waits so long for the last one, in ms. */
const LATEST_STEP = 120;
const LONGEST_MS = 8_000;
/** As NSM's client waits for an answer. */
const CALL_MS = 15_000;

type EndBy = "stop" | "death" | "death while it stops";
const WAYS: readonly EndBy[] = ["stop", "death", "death while it stops"];

/** Answers with the pods whose connections stand at its end. */
export async function upgrades(simulation: Simulation): Promise<readonly SimulatedPod[]> {
  const { seed, peers } = simulation;
  peers.nsmgr.dialsFormer();
  const kept = [await simulation.startPod("kernel"), await vfioPod(simulation, "vfio")];
  let leaver = await comer(simulation, 0);
  for (const { client } of [...kept, leaver]) await client.request();
  for (const pod of kept) simulation.keeping.add(pod);
  const closeGroup = seed.draw("the group is open", 2) === 1 ? simulation.openVfio(kept[1] ?? leaver) : () => {};
  const before = kept.map(placeOf);
  const watches = new Watches(simulation);
  await watches.begin();
  for (let nth = 1; nth <= UPGRADES; nth++) {
    const coming = await comer(simulation, nth);
    const meanwhile = [
      () => coming.client.request({ timeoutMs: CALL_MS }),
      () => leaver.client.close({ timeoutMs: CALL_MS }),
    ];
    if (seed.draw(`refreshes ${nth}`, 2) === 1)
      meanwhile.push(
        ...kept.map(
          ({ client }) =>
            () =>
              client.request(),
        ),
      );
    const former = peers.nsmgr.registry.endpoints.all();
    await upgrade(simulation, nth, meanwhile);
    await watches.begin();
    await Promise.all(kept.map((pod) => heal(simulation, pod, nth)));
    expire(simulation, former);
    await insist(simulation, () => coming.client.request({ timeoutMs: CALL_MS }));
    await insist(simulation, async () => (leaver.client.connection ? leaver.client.close() : undefined));
    leaver = coming;
    assert.deepEqual(kept.map(placeOf), before);
  }
  await insist(simulation, () => leaver.client.close());
  await endOfOthers(simulation, kept);
  watches.end(kept);
  simulation.keeping.clear();
  closeGroup();
  return kept;
}

function comer(simulation: Simulation, nth: number): Promise<SimulatedPod> {
  const isVfio = simulation.seed.draw(`comer ${nth} is VFIO`, 2) === 1;
  return simulation.startPod(`comer-${nth}`, { mechanism: isVfio ? "VFIO" : "KERNEL" });
}

/** What no upgrade may change. */
function placeOf({ client: { connection } }: SimulatedPod) {
  const [own, endpoint] = connection?.path?.pathSegments.slice(FORWARDER_INDEX) ?? [];
  const { parameters } = connection?.mechanism ?? {};
  const { context } = connection ?? {};
  return { vf: parameters?.["pciAddress"], id: own?.id, endpoint: endpoint?.id, context };
}

/** The calls are sent, the forwarder ends at one of the steps that follow, and the next one comes under another name. */
async function upgrade(simulation: Simulation, nth: number, calls: readonly (() => Promise<unknown>)[]): Promise<void> {
  const { seed, peers, node } = simulation;
  const by = WAYS[seed.draw(`ends ${nth} by`, WAYS.length)] ?? "stop";
  const after = seed.draw(`ends ${nth} at`, LATEST_STEP);
  const sent = calls.map(async (call, index) => {
    await node.clock.sleep(seed.draw(`call ${index} of ${nth}`, 50));
    await call().catch(() => {});
  });
  await endOf(simulation, by, { after, dyingAfter: seed.draw(`dies ${nth} at`, 30) });
  await node.clock.sleep(seed.draw(`is away ${nth}`, 3_000));
  simulation.upgrade();
  await simulation.startForwarder();
  await simulation.offers(simulation.vfCount);
  await Promise.all(sent);
  // After a death the manager's entry has the dead one's SPIFFE ID, and finds it when its time of the connections is up.
  if (by !== "stop") await peers.nsmgr.timeUp();
}

async function endOf(
  simulation: Simulation,
  by: EndBy,
  { after, dyingAfter }: { readonly after: number; readonly dyingAfter: number },
): Promise<void> {
  const { process, node } = simulation;
  const isThere = Promise.withResolvers<void>();
  let left = after;
  simulation.diesAt = () => {
    if (left-- !== 0) return false;
    isThere.resolve();
    return by === "death";
  };
  await Promise.race([isThere.promise, node.clock.sleep(LONGEST_MS)]);
  simulation.diesAt = undefined;
  if (by === "death while it stops") {
    diesAfter(simulation, dyingAfter);
    await Promise.race([simulation.stopForwarder(), hasDied(simulation, LONGEST_MS)]);
  }
  if (by === "stop") await simulation.stopForwarder();
  else if (process?.isOver === false) simulation.kill();
}

/** As NSM's client does: by the same Request where its data plane is well, else by one that reselects. */
async function heal(simulation: Simulation, { name, client }: SimulatedPod, nth: number): Promise<void> {
  const reselects = simulation.seed.draw(`${name} reselects ${nth}`, 2) === 1;
  const alter = ({ connection }: ReturnType<typeof client.proposal>) => {
    delete connection?.mechanism;
    Object.assign(connection ?? {}, { networkServiceEndpointName: "", state: State.RESELECT_REQUESTED });
  };
  await insist(simulation, () => client.request({ timeoutMs: CALL_MS, ...(reselects ? { alter } : {}) }));
}

/** Entries that a death has left in the registry are there no longer than their time. */
function expire({ peers }: Simulation, former: readonly EndpointEntry[]): void {
  const { registry } = peers.nsmgr;
  const left = registry.endpoints.all().filter((entry) => former.includes(entry));
  for (const { endpoint } of left) if (endpoint.name.startsWith("forwarder-")) registry.removeEndpoint(endpoint.name);
}

/** A Close that was held back as a manager's is forgotten with its forwarder: the connection's own time ends it. */
async function endOfOthers(simulation: Simulation, kept: readonly SimulatedPod[]): Promise<void> {
  const hasOthers = () => (simulation.forwarder?.nsm.connections().length ?? 0) > kept.length;
  for (let waitedMs = 0; hasOthers() && waitedMs < 2 * TOKEN_LIFETIME_MS; waitedMs += 10_000) {
    await simulation.node.clock.sleep(10_000);
    for (const { client } of kept) await client.request();
  }
}

/** What each forwarder publishes to the manager, as long as it lives. */
class Watches {
  readonly #simulation: Simulation;
  readonly #records: MonitorRecord[] = [];

  constructor(simulation: Simulation) {
    this.#simulation = simulation;
  }

  async begin(): Promise<void> {
    const { peers, forwarderName } = this.#simulation;
    this.#records.push(await insist(this.#simulation, async () => peers.nsmgr.watch(forwarderName)));
  }

  /** None of these may have been said to have ended. */
  end(pods: readonly SimulatedPod[]): void {
    const clients = pods.map(({ client }) => client.connection?.path?.pathSegments[0]?.id);
    const ends = this.#records
      .flatMap(({ events }) => events.filter(({ type }) => type === ConnectionEventType.DELETE))
      .flatMap(({ connections }) => Object.values(connections))
      .filter(({ path }) => clients.includes(path?.pathSegments[0]?.id));
    assert.deepEqual(ends, []);
    for (const record of this.#records) record.stop();
  }
}
