// What must agree when nothing is under way, whatever happened before and in whichever order: what clients were answered, what the
// forwarder has in memory and on its disk, what stands on the node, and what endpoints and kubelet have.
import type { Random } from "../../src/async/index.ts";
import { effectOf, type VfRecord } from "../../src/inventory/index.ts";
import { openStateFolder } from "../../src/kernel/index.ts";
import { openNodeJournal } from "../../src/mechanisms/index.ts";
import { Health, silentLog } from "../../src/telemetry/index.ts";
import { FATES } from "../machine/unsynced-disk.ts";
import type { SimulatedNode } from "./simulated-node.ts";
import type { SimulatedPeers } from "./simulated-peers.ts";
import {
  FORWARDER_INDEX,
  OTHER_RESOURCE,
  RESOURCE,
  type SimulatedPod,
  type Simulation,
  STATE_FOLDER,
} from "./simulation.ts";
import { vfDifferences, vfOfPod, vfOnNode } from "./vf-on-node.ts";
import { ownersOf } from "./vf-owners.ts";

/** What does not agree, in words. `open`: the pods whose connections stand. */
export async function disagreements(simulation: Simulation, open: readonly SimulatedPod[]): Promise<readonly string[]> {
  const { forwarder, node, peers, seed, vfCount, deaths } = simulation;
  if (!forwarder) return ["no forwarder runs"];
  const vfs = forwarder.node.inventory.snapshot();
  const connections = forwarder.nsm.connections();
  const keyOf = (id: string) => connections.find(({ pathId }) => pathId === id)?.id ?? id;
  const answered = open.map(answerOf).map(({ id, vf }) => ({ id: keyOf(id), vf }));
  const known = connections.map(({ id, phase }) => `${id} ${phase}`);
  const established = answered.map(({ id }) => `${id} established`);
  const held = answered.flatMap(({ id, vf }) => (vf ? [`${vf} of ${id}`] : []));
  const wrong = [
    ...vfs.flatMap(wrongWith),
    ...unlike("VFs of the inventory", vfs.length, vfCount),
    ...unlike("connections", textOf(known), textOf(established)),
    ...unlike("VFs that are held", textOf(holders(vfs)), textOf(held)),
    ...endpointsUnlike(peers, open, deaths),
    ...unlike("healthy devices at kubelet", simulation.healthyDevices(RESOURCE), vfCount),
    ...unlike(
      "those that are free",
      simulation.healthyDevices(OTHER_RESOURCE),
      vfCount - peers.kubelet.allocations.length,
    ),
  ];
  // The disk and the node are read when all else agrees: that is what is waited for, and costs the less.
  if (wrong.length > 0) return wrong;
  return [...(await journalUnlike(node, seed.random("journal"), vfs)), ...nodeUnlike(node, vfs, open)];
}

function wrongWith({ address, state, conditions }: VfRecord): readonly string[] {
  const away = conditions.filter((condition) => effectOf(condition) !== "inform").map(({ code }) => code);
  const isUnderWay = state === "preparing" || state === "reclaiming";
  return [...away, ...(isUnderWay ? [state] : [])].map((what) => `${address} is ${what}`);
}

function holders(vfs: readonly VfRecord[]): readonly string[] {
  return vfs.flatMap(({ address, connectionId }) => (connectionId ? [`${address} of ${connectionId}`] : []));
}

/** What a client was answered. */
function answerOf({ name, client: { connection } }: SimulatedPod) {
  const id = connection?.path?.pathSegments[FORWARDER_INDEX]?.id ?? `that ${name} has not`;
  return { id, vf: connection?.mechanism?.parameters["pciAddress"], type: connection?.mechanism?.type };
}

/** As a later process would find it after a power cut now. */
async function journalUnlike(
  { disk, clock }: SimulatedNode,
  random: Random,
  vfs: readonly VfRecord[],
): Promise<readonly string[]> {
  const state = await openStateFolder(STATE_FOLDER, { disk: disk.afterPowerCut(FATES.lost), random });
  const journal = await openNodeJournal({ state, health: new Health(clock), clock, log: silentLog });
  const kept = [...journal.vfs.values()].map(({ address, connectionId }) => `${address} of ${connectionId}`);
  const connections = [...journal.left.values()];
  await journal.close();
  return [
    ...unlike("VFs in the journal", textOf(kept), textOf(holders(vfs))),
    ...unlike(
      "connections with a VF in the journal",
      connections.filter(({ mechanism }) => mechanism !== "NOOP").length,
      kept.length,
    ),
    ...connections
      .filter(({ stage }) => stage !== "ready")
      .map(({ connectionId, stage }) => `${connectionId} is ${stage} in the journal`),
  ];
}

function nodeUnlike(node: SimulatedNode, vfs: readonly VfRecord[], open: readonly SimulatedPod[]): readonly string[] {
  const podOf = new Map(open.map((pod) => [answerOf(pod).vf, pod]));
  const wrong = vfs.flatMap((vf) => vfUnlike(node, vf, podOf.get(vf.address)));
  return [...wrong, ...(node.locks.held.includes(STATE_FOLDER) ? [] : ["no process has the state folder"])];
}

function vfUnlike(node: SimulatedNode, vf: VfRecord, pod: SimulatedPod | undefined): readonly string[] {
  const { address, driver, kernelDriver } = vf;
  const before = node.vfBefore(address);
  const connection = pod?.client.connection;
  const free = driver === kernelDriver ? before : { ...before, link: undefined };
  const desired = connection ? vfOfPod(before, connection, pod.netns) : free;
  const owners = ownersOf(node, address);
  return [
    ...unlike(`owners of ${address}, ${owners.join(" and ") || "none"}`, owners.length, pod ? 1 : 0),
    ...vfDifferences(address, vfOnNode(node, vf), desired),
  ];
}

/** What was asked of an endpoint by a forwarder that died before the answer is for the endpoint to end, with its time. */
function endpointsUnlike(
  { endpoints }: SimulatedPeers,
  open: readonly SimulatedPod[],
  deaths: number,
): readonly string[] {
  const established = endpoints.flatMap(({ monitor }) => monitor.ids);
  const desired = open.map(({ client }) => client.connection?.path?.pathSegments.at(-1)?.id ?? "none");
  const left = established.filter((id) => !desired.includes(id));
  return [
    ...desired.filter((id) => !established.includes(id)).map((id) => `no endpoint has ${id}`),
    ...(deaths === 0 ? left.map((id) => `an endpoint still has ${id}`) : []),
  ];
}

function textOf(all: readonly string[]): string {
  return [...all].sort().join(", ") || "none";
}

function unlike(what: string, seen: string | number, desired: string | number): readonly string[] {
  return seen === desired ? [] : [`${what}: ${seen}, and should be ${desired}`];
}
