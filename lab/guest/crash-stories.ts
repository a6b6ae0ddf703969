import assert from "node:assert/strict";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { closePoints, type DeathPoint, requestPoints, untilItDied } from "./death-points.ts";
import { netdevOf } from "./hardware.ts";
import { answer, contextFor, untilAsBefore, wholeNode } from "./kernel-stories.ts";
import type { LabNode } from "./node.ts";
import { PacedPings } from "./paced-pings.ts";
import type { Stage } from "./stage.ts";
import { eventually } from "./waiting.ts";

const VLAN = 300;

/** Two clients that talk all the time: near on one adapter, far on the other. */
interface Talkers {
  readonly near: SandboxPod;
  readonly far: SandboxPod;
  readonly pings: PacedPings;
}

type Work = (node: LabNode, talkers: Talkers) => Promise<void>;

/** The forwarder dies while two clients talk. */
export async function crashes(stage: Stage): Promise<void> {
  const node = await stage.node();
  for (const [name, work] of storiesOfDeath()) await stage.story(name, () => besideTalkers(node, work));
  await endTalkers(node);
  await stage.stories({
    "what happens while it is down is put right by its next start: a pod dies, and its VF is restored":
      podDiesMeanwhile,
  });
}

function storiesOfDeath(): readonly (readonly [name: string, work: Work])[] {
  const goesOnAt = ({ says }: DeathPoint, call: string) =>
    `killed in a ${call} when ${says} it continues where it was, and two that talk lose no packet`;
  return [
    ["two that talk lose no packet without a crash, with as much work beside them", noneDies],
    ...requestPoints.map((point, step): [string, Work] => [
      goesOnAt(point, "Request"),
      goesOn((node, talkers) => diesInRequest(node, talkers, { point, mac: mac(10 + step) })),
    ]),
    ...closePoints.map((point, step): [string, Work] => [
      goesOnAt(point, "Close"),
      goesOn((node) => diesInClose(node, { point, mac: mac(20 + step) })),
    ]),
    ["after every crash both are taken up still, with all that they had", isTakenUp],
  ];
}

let talking: Talkers | undefined;

/** The same two from story to story; after one that failed there are others, and no pod of it is left. */
async function besideTalkers(node: LabNode, work: Work): Promise<void> {
  try {
    talking ??= await startTalkers(node);
    await work(node, talking);
  } catch (error) {
    await endTalkers(node);
    throw error;
  }
}

async function startTalkers(node: LabNode): Promise<Talkers> {
  const [near, far] = [
    await node.pod("left", contextFor(mac(1), VLAN)),
    await node.pod("right", contextFor(mac(2), VLAN)),
  ];
  for (const { client } of [near, far]) await client.request();
  assert.notEqual(await answer(near, far), undefined);
  return { near, far, pings: await PacedPings.start(near, far) };
}

async function endTalkers(node: LabNode): Promise<void> {
  await talking?.pings.end();
  talking = undefined;
  await node.endLeftPods();
}

async function isTakenUp(_node: LabNode, { near, far, pings }: Talkers): Promise<void> {
  const before = await wholeNode();
  for (const { client } of [near, far]) await client.request(); // a refresh
  assert.deepEqual(await wholeNode(), before);
  await pings.lostNothing();
}

/** The comparison: the same pace and the same work, Request, Close and a program's start; only without a death. */
async function noneDies(node: LabNode, { pings }: Talkers): Promise<void> {
  await pings.lostNothing();
  await oneLife(node);
  await node.startAnotherProgram();
  const sent = await pings.lostNothing();
  assert.ok(sent > 100, `only ${sent} packets were sent`);
}

/** No client loses a packet meanwhile, and all is as it was. */
function goesOn(work: Work): Work {
  return async (node, talkers) => {
    const before = await wholeNode();
    await talkers.pings.lostNothing();
    await work(node, talkers);
    await untilAsBefore(before);
    const sent = await talkers.pings.lostNothing();
    assert.ok(sent > 100, `only ${sent} packets were sent`);
  };
}

interface Death {
  readonly point: DeathPoint;
  readonly mac: string;
}

async function diesInRequest(node: LabNode, { far }: Talkers, { point, mac }: Death): Promise<void> {
  await untilItDied(node, point, async (dies) => {
    const pod = await node.pod("left", contextFor(mac, VLAN));
    await dies(() => pod.client.request());
    await node.stopwatch.time("restart", () => node.startForwarder());
    await pod.client.request(); // as every client does that has got no answer
    assert.notEqual(await answer(pod, far), undefined);
    await node.endPods(pod);
  });
}

async function diesInClose(node: LabNode, { point, mac }: Death): Promise<void> {
  await untilItDied(node, point, async (dies) => {
    const pod = await node.pod("left", contextFor(mac, VLAN));
    await pod.client.request();
    await dies(async () => {
      await pod.client.close();
      await node.cleaned();
    });
    await node.stopwatch.time("restart", () => node.startForwarder());
    await node.endPods(pod);
  });
}

/** No process holds the namespace then: the kernel itself puts the VF back, with the name that it had in the pod. */
async function podDiesMeanwhile(node: LabNode): Promise<void> {
  const before = await wholeNode();
  const pod = await node.pod("left", contextFor(mac(30), VLAN));
  const client = node.directClient(pod); // a manager in between would hold the namespace
  const connection = await client.request();
  const address = connection.mechanism?.parameters["pciAddress"] ?? "";
  await node.killForwarder();
  await client.hangUp();
  await node.dropPod(pod);
  await eventually(
    () => netdevOf(address),
    (ifname) => ifname === "nsm-1",
  );
  await node.startForwarder();
  await untilAsBefore(before);
}

async function oneLife(node: LabNode): Promise<void> {
  const pod = await node.pod("left", contextFor(mac(9), VLAN));
  await pod.client.request();
  await node.endPods(pod);
}

function mac(number: number): string {
  return `0a:55:44:33:24:${number.toString(16).padStart(2, "0")}`;
}
