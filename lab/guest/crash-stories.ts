import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { netdevOf } from "./hardware.ts";
import { addressOf, answer, untilAsBefore, wholeNode, wish } from "./kernel-stories.ts";
import type { LabNode } from "./node.ts";
import { eventually, pause } from "./waiting.ts";

const VLAN = 300;

/** Where in a Request, and in a Close, the forwarder dies: as parts of the time that one takes without a crash. */
const REQUEST_STEPS = [0.3, 0.6, 0.85];
const CLOSE_STEPS = [0.3, 0.7];

/** The forwarder dies while two clients talk. */
export const crashStories: Readonly<Record<string, (node: LabNode) => Promise<void>>> = {
  ...Object.fromEntries(
    REQUEST_STEPS.map((part, step) => [
      `killed at ${part} of a Request it goes on where it was, and two that talk lose no packet`,
      (node: LabNode) => besideFlood(node, (far) => diesInRequest(node, { part, mac: mac(10 + step), far })),
    ]),
  ),
  ...Object.fromEntries(
    CLOSE_STEPS.map((part, step) => [
      `killed at ${part} of a Close it goes on where it was, and two that talk lose no packet`,
      (node: LabNode) => besideFlood(node, () => diesInClose(node, { part, mac: mac(20 + step) })),
    ]),
  ),
  "what happens while it is down is put right by its next start: a pod dies, and its function comes home":
    podDiesMeanwhile,
};

/** Two clients talk as fast as they can meanwhile, and lose nothing; they are taken up, and all is as it was. */
async function besideFlood(node: LabNode, work: (far: SandboxPod) => Promise<void>): Promise<void> {
  const [near, far] = [await node.pod("left", wish(mac(1), VLAN)), await node.pod("right", wish(mac(2), VLAN))];
  for (const { client } of [near, far]) await client.request();
  assert.notEqual(await answer(near, far), undefined);
  const before = await wholeNode();
  const flood = new Flood(near, addressOf(far));
  try {
    await work(far);
  } finally {
    const { sent, lost } = await flood.end();
    assert.ok(sent > 50, `only ${sent} packets were sent`);
    assert.equal(lost, 0, `of ${sent} packets`);
  }
  for (const { client } of [near, far]) await client.request(); // both were taken up: this is a refresh
  assert.deepEqual(await wholeNode(), before);
  await node.endPods(near, far);
}

async function diesInRequest(
  node: LabNode,
  { part, mac, far }: { readonly part: number; readonly mac: string; readonly far: SandboxPod },
): Promise<void> {
  const { requestMs } = await timesOfALife(node);
  const pod = await node.pod("left", wish(mac, VLAN));
  await dieAfter(node, part * requestMs, () => pod.client.request());
  await node.stopwatch.time("restart", () => node.startForwarder());
  await pod.client.request(); // as every client does that has got no answer
  assert.notEqual(await answer(pod, far), undefined);
  await node.endPods(pod);
}

async function diesInClose(
  node: LabNode,
  { part, mac }: { readonly part: number; readonly mac: string },
): Promise<void> {
  const { closeMs } = await timesOfALife(node);
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

/** How long a Request and a Close take here and now. */
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

/** Pings as fast as answers come, at least a hundred times a second, from a pod to an address. */
class Flood {
  readonly #child: ChildProcess;
  readonly #said: Promise<string>;

  constructor({ pod }: SandboxPod, to: string) {
    const netns = `--net=/proc/${process.pid}/fd/${pod.netns.fd.number}`;
    this.#child = spawn("nsenter", [netns, "--", "ping", "-f", to], { stdio: ["ignore", "pipe", 2] });
    let text = "";
    this.#child.stdout?.on("data", (data: Buffer) => (text += data));
    this.#said = new Promise((resolve) => this.#child.once("close", () => resolve(text)));
  }

  /** How many packets found no answer, but for one that was under way at the end. */
  async end(): Promise<{ readonly sent: number; readonly lost: number }> {
    this.#child.kill("SIGINT");
    const said = await this.#said;
    const counts = /(\d+) packets transmitted, (\d+) received/.exec(said);
    assert.ok(counts, `ping said: ${said.slice(-500)}`);
    // It writes a dot for each packet and takes it away with the answer.
    const underWay = /\.\s*---/.test(said) ? 1 : 0;
    return { sent: Number(counts[1]), lost: Number(counts[1]) - Number(counts[2]) - underWay };
  }
}
