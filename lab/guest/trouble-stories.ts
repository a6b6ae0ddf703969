import assert from "node:assert/strict";
import type { KubeletDevice } from "../../sandbox/kubelet/kubelet.ts";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { ip } from "../../test/sandbox/scenes/ip.ts";
import { adapters, driverFile, netdevOf, operate, rescanBus, VFS_PER_ADAPTER, vfsOf } from "./hardware.ts";
import { answer, contextFor, untilAsBefore, wholeNode } from "./kernel-stories.ts";
import type { LabNode, Side } from "./node.ts";
import { PacedPings } from "./paced-pings.ts";
import { eventually, pause } from "./waiting.ts";

const VLAN = 400;

/** What operators and dying pods do to a node. Two clients of the other adapter talk meanwhile and lose no packet. */
export const troubleStories = {
  "a pod that dies without Close gives its VF back, clean, and another gets it": podDies,
  "a VF that an operator unbinds is reported, and the others are not touched": unbound,
  "an adapter whose link is down is reported, and is well again when it is up": linkDown,
  "functions that are taken away are reported, and offered again when they are back": numberChanges,
  "an adapter that is taken off the bus is reported, and served again when the bus is scanned": adapterRemoved,
};

async function podDies(node: LabNode): Promise<void> {
  const before = await wholeNode();
  const pod = await node.pod("left", contextFor("0a:55:44:33:25:01", VLAN));
  await pod.client.request();
  await pause(3000); // kubelet is asked a second after it gave out the device: then the pod is known by name
  await node.dropPod(pod);
  await node.stopwatch.time("pod_dies_until_home", () => untilAsBefore(before));
  await serves(node, "left");
  await untilAsBefore(before);
}

async function unbound(node: LabNode): Promise<void> {
  await besideTalkers(node, async () => {
    const pod = await node.pod("right", contextFor("0a:55:44:33:25:02", VLAN));
    const connection = await pod.client.request();
    const address = connection.mechanism?.parameters["pciAddress"] ?? "";
    driverFile("igbvf", "unbind", address);
    await untilDevices(node, "right", { healthy: VFS_PER_ADAPTER - 1 });
    const unwell = node.devices("right").filter(({ healthy }) => !healthy);
    assert.deepEqual(
      unwell.map(({ id }) => id),
      [pod.tokenId],
    );
    assert.equal(healthyOf(node, "left"), VFS_PER_ADAPTER);
    await serves(node, "right");
    driverFile("igbvf", "bind", address);
    await node.endPods(pod);
    await untilDevices(node, "right", { healthy: VFS_PER_ADAPTER });
    await everyFunctionServes(node, "right");
  });
}

async function linkDown(node: LabNode): Promise<void> {
  await besideTalkers(node, async () => {
    const pod = await node.pod("right", contextFor("0a:55:44:33:25:04", VLAN));
    await pod.client.request();
    const ifname = netdevOf(adapters.right);
    await ip(undefined, `link set dev ${ifname} down`);
    await untilDevices(node, "right", { healthy: 0 });
    assert.equal(healthyOf(node, "left"), VFS_PER_ADAPTER);
    assert.match(JSON.stringify(await node.status()), /0000:02:00\.0/);
    await ip(undefined, `link set dev ${ifname} up`);
    await untilDevices(node, "right", { healthy: VFS_PER_ADAPTER });
    await serves(node, "right");
    await pod.client.request(); // it has what it had
    assert.equal((await pod.pod.link("nsm-1"))?.up, true);
    await node.endPods(pod);
  });
}

async function numberChanges(node: LabNode): Promise<void> {
  await besideTalkers(node, async () => {
    operate(`${adapters.right}/sriov_numvfs`, "0");
    await untilDevices(node, "right", { healthy: 0 });
    assert.equal(healthyOf(node, "left"), VFS_PER_ADAPTER);
    operate(`${adapters.right}/sriov_numvfs`, "3");
    await untilDevices(node, "right", { healthy: 3, all: 3 });
    // The adapter loses its carrier for a moment after its VFs were made, and no client is served meanwhile.
    await untilServed(node, "right");
    operate(`${adapters.right}/sriov_numvfs`, "0");
    await untilDevices(node, "right", { healthy: 0 });
    operate(`${adapters.right}/sriov_numvfs`, String(VFS_PER_ADAPTER));
    await untilDevices(node, "right", { healthy: VFS_PER_ADAPTER });
  });
}

async function adapterRemoved(node: LabNode): Promise<void> {
  await besideTalkers(node, async () => {
    const pod = await node.pod("right", contextFor("0a:55:44:33:25:03", VLAN));
    await pod.client.request();
    operate(`${adapters.right}/remove`, "1");
    await untilDevices(node, "right", { healthy: 0 });
    assert.deepEqual(await vfsOf(adapters.right), []);
    assert.equal(healthyOf(node, "left"), VFS_PER_ADAPTER);
    rescanBus();
    await untilDevices(node, "right", { healthy: VFS_PER_ADAPTER });
    await node.dropPod(pod); // what it had is gone
    await untilDevices(node, "right", { healthy: VFS_PER_ADAPTER });
    await serves(node, "right");
  });
}

/** Two clients on the left adapter talk meanwhile and lose nothing. */
async function besideTalkers(node: LabNode, work: () => Promise<void>): Promise<void> {
  const macs = ["0a:55:44:33:25:0a", "0a:55:44:33:25:0b"];
  const talkers: SandboxPod[] = [];
  for (const mac of macs) talkers.push(await node.pod("left", contextFor(mac, VLAN)));
  for (const { client } of talkers) await client.request();
  const [one, other] = talkers as [SandboxPod, SandboxPod];
  assert.notEqual(await answer(one, other), undefined);
  const pings = await PacedPings.start(one, other);
  try {
    await work();
    await pings.lostNothing();
  } finally {
    await pings.end();
  }
  await node.endPods(...talkers);
}

/** A new client is served from its Request to its Close. */
export async function serves(node: LabNode, side: Side): Promise<void> {
  const pod = await node.pod(side, contextFor("0a:55:44:33:25:ff", VLAN));
  await pod.client.request();
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  await node.endPods(pod);
}

/** Each VF of the adapter serves a client. */
export async function everyFunctionServes(node: LabNode, side: Side): Promise<void> {
  const pods = [];
  for (let number = 0; number < VFS_PER_ADAPTER; number += 1) {
    pods.push(await node.pod(side, contextFor(`0a:55:44:33:28:0${number}`, VLAN)));
  }
  for (const { client, pod } of pods) {
    await client.request();
    assert.equal((await pod.link("nsm-1"))?.up, true);
  }
  await node.endPods(...pods);
}

/** A client asks until it is served, as every client does. */
export async function untilServed(node: LabNode, side: Side): Promise<void> {
  const pod = await node.pod(side, contextFor("0a:55:44:33:25:fe", VLAN));
  const request = () => pod.client.request().then(() => "served", String);
  await eventually(request, (answer) => answer === "served");
  await node.endPods(pod);
}

async function untilDevices(
  node: LabNode,
  side: Side,
  desired: { readonly healthy?: number; readonly all?: number },
): Promise<void> {
  const count = (devices: readonly KubeletDevice[]) => ({
    all: devices.length,
    healthy: devices.filter(({ healthy }) => healthy).length,
  });
  await eventually(
    () => count(node.devices(side)),
    ({ all, healthy }) => all === (desired.all ?? all) && healthy === (desired.healthy ?? healthy),
  );
}

function healthyOf(node: LabNode, side: Side): number {
  return node.devices(side).filter(({ healthy }) => healthy).length;
}
