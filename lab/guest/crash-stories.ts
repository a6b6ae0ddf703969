import assert from "node:assert/strict";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { netdevOf } from "./hardware.ts";
import { answer, untilAsBefore, wholeNode, wish } from "./kernel-stories.ts";
import type { LabNode } from "./node.ts";
import { PacedPings } from "./paced-pings.ts";
import type { Stage } from "./stage.ts";
import { eventually, pause } from "./waiting.ts";

const VLAN = 300;

/** Where in a Request, and in a Close, the forwarder dies: as parts of the time that one takes without a crash. */
const REQUEST_STEPS = [0.3, 0.6, 0.85];
const CLOSE_STEPS = [0.3, 0.7];

/** Two clients that talk all the time: near on one adapter, far on the other. */
interface Talkers {
  readonly far: SandboxPod;
  readonly pings: PacedPings;
  /** How long a Request and a Close take here and now. */
  readonly requestMs: number;
  readonly closeMs: number;
}

/** The forwarder dies while two clients talk. */
export async function crashes(stage: Stage): Promise<void> {
  const node = await stage.node();
  const [near, far] = [await node.pod("left", wish(mac(1), VLAN)), await node.pod("right", wish(mac(2), VLAN))];
  for (const { client } of [near, far]) await client.request();
  assert.notEqual(await answer(near, far), undefined);
  const pings = await PacedPings.start(near, far);
  try {
    await stage.story("two that talk lose no packet while nobody crashes, with as much work beside them", () =>
      nobodyDies(node, pings),
    );
    const talkers = { far, pings, ...(await timesOfALife(node)) };
    for (const [step, part] of REQUEST_STEPS.entries()) {
      await stage.story(
        `killed at ${part} of a Request it goes on where it was, and two that talk lose no packet`,
        () => goesOn(talkers, () => diesInRequest(node, talkers, { part, mac: mac(10 + step) })),
      );
    }
    for (const [step, part] of CLOSE_STEPS.entries()) {
      await stage.story(`killed at ${part} of a Close it goes on where it was, and two that talk lose no packet`, () =>
        goesOn(talkers, () => diesInClose(node, talkers, { part, mac: mac(20 + step) })),
      );
    }
    await stage.story("after every crash both are taken up still, with all that they had", async () => {
      const before = await wholeNode();
      for (const { client } of [near, far]) await client.request(); // a refresh
      assert.deepEqual(await wholeNode(), before);
      await pings.lostNothing();
    });
  } finally {
    await pings.end();
    await node.endLeftPods();
  }
  await stage.stories({
    "what happens while it is down is put right by its next start: a pod dies, and its function comes home":
      podDiesMeanwhile,
  });
}

/** The comparison: the same pace and the same work, Request, Close and a program's start; only nobody dies. */
async function nobodyDies(node: LabNode, pings: PacedPings): Promise<void> {
  await pings.lostNothing();
  await timesOfALife(node);
  await node.startAnotherProgram();
  const sent = await pings.lostNothing();
  assert.ok(sent > 100, `only ${sent} packets were sent`);
}

/** Nobody loses a packet meanwhile, and all is as it was. */
async function goesOn({ pings }: Talkers, work: () => Promise<void>): Promise<void> {
  const before = await wholeNode();
  await pings.lostNothing();
  await work();
  assert.deepEqual(await wholeNode(), before);
  const sent = await pings.lostNothing();
  assert.ok(sent > 100, `only ${sent} packets were sent`);
}

async function diesInRequest(
  node: LabNode,
  { far, requestMs }: Talkers,
  { part, mac }: { readonly part: number; readonly mac: string },
): Promise<void> {
  const pod = await node.pod("left", wish(mac, VLAN));
  await dieAfter(node, part * requestMs, () => pod.client.request());
  await node.stopwatch.time("restart", () => node.startForwarder());
  await pod.client.request(); // as every client does that has got no answer
  assert.notEqual(await answer(pod, far), undefined);
  await node.endPods(pod);
}

async function diesInClose(
  node: LabNode,
  { closeMs }: Talkers,
  { part, mac }: { readonly part: number; readonly mac: string },
): Promise<void> {
  const pod = await node.pod("left", wish(mac, VLAN));
  await pod.client.request();
  await dieAfter(node, part * closeMs, () => pod.client.close());
  await node.stopwatch.time("restart", () => node.startForwarder());
  await node.endPods(pod);
}

/** Nobody holds the namespace then: the kernel itself puts the function back, with the name that it had in the pod. */
async function podDiesMeanwhile(node: LabNode): Promise<void> {
  const before = await wholeNode();
  const pod = await node.pod("left", wish(mac(30), VLAN));
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

async function timesOfALife(node: LabNode): Promise<{ readonly requestMs: number; readonly closeMs: number }> {
  const pod = await node.pod("left", wish(mac(9), VLAN));
  const startedAt = performance.now();
  await pod.client.request();
  const servedAt = performance.now();
  await pod.client.close();
  const closedAt = performance.now();
  await node.endPods(pod);
  return { requestMs: servedAt - startedAt, closeMs: closedAt - servedAt };
}

async function dieAfter(node: LabNode, ms: number, call: () => Promise<unknown>): Promise<void> {
  const called = call().catch(() => {}); // cut off, or answered just before
  await pause(ms);
  await node.killForwarder();
  await called;
}

function mac(number: number): string {
  return `0a:55:44:33:24:${number.toString(16).padStart(2, "0")}`;
}
