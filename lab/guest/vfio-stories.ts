import assert from "node:assert/strict";
import type { Client } from "../../sandbox/nsm/client.ts";
import { adapters, driverOf, operate, VFS_PER_ADAPTER, vfsOf, writeAside } from "./hardware.ts";
import { EVERYTHING } from "./hold-vf.ts";
import { answer, contextFor } from "./kernel-stories.ts";
import type { LabNode, Side } from "./node.ts";
import { everyFunctionServes, serves, untilServed } from "./trouble-stories.ts";
import { REFUSED, VfioPod } from "./vfio-pod.ts";
import { eventually, within } from "./waiting.ts";

const VLAN = 600;
const LIMIT_MS = 30_000;

/** A VF as a device that only its pod's programs can open: real groups, a real IOMMU. */
export const vfioStories = {
  "a program of the pod opens the group, maps memory and resets the VF; no other pod's can, nor any after Close":
    lifeOfOne,
  "a program keeps what it has open while the forwarder is killed and comes back, and no process has it after Close":
    survivesRestart,
  "one VF is KERNEL, then VFIO, then KERNEL again": becomesAnother,
  "the Close of a VF that a program will not let go of fails, and the log says who has it; no other call waits, and it is restored in the end":
    heldOpen,
  "an operator's unbind that waits for a program keeps no other call waiting": unbindWaits,
  "an operator's change of the number of VFs that waits for a program keeps no other call waiting": numberWaits,
};

async function lifeOfOne(node: LabNode): Promise<void> {
  const one = await VfioPod.start(node, "left", contextFor("0a:55:44:33:27:01", VLAN));
  const other = await VfioPod.start(node, "left", contextFor("0a:55:44:33:27:02", VLAN));
  await node.stopwatch.time("request_vfio", () => one.client.request());
  const { group, address } = functionOf(one.client);
  assert.equal(driverOf(address), "vfio-pci");
  const vf = (await vfsOf(adapters.left)).find((state) => state.address === address);
  assert.deepEqual(vf?.port, { mac: "0a:55:44:33:27:01", vlan: VLAN });
  assert.deepEqual(await one.steps(one), EVERYTHING);
  assert.deepEqual(await other.steps(one), REFUSED);

  await other.client.request();
  assert.notEqual(functionOf(other.client).group, group);
  assert.deepEqual(await other.steps(other), EVERYTHING);
  assert.deepEqual(await other.steps(one), REFUSED);
  await node.stopwatch.time("close_vfio", () => one.client.close());
  assert.deepEqual(await one.stepsAt(group, address), REFUSED);
  assert.equal((await vfsOf(adapters.left)).find((state) => state.address === address)?.port.vlan, 0);
  assert.deepEqual(await other.steps(other), EVERYTHING);
  await other.client.close();
}

async function survivesRestart(node: LabNode): Promise<void> {
  const pod = await VfioPod.start(node, "left", contextFor("0a:55:44:33:27:03", VLAN));
  await pod.client.request();
  const { group, address } = functionOf(pod.client);
  const holder = await pod.tries(pod);
  assert.deepEqual(holder.steps, EVERYTHING);
  await node.killForwarder();
  await node.startForwarder();
  await pod.client.request(); // a refresh: it was taken up
  assert.equal(functionOf(pod.client).group, group);
  assert.equal(holder.isRunning, true);
  assert.deepEqual(await pod.steps(pod), ["group: error 16"]); // EBUSY: let in, but the holder has it still
  await holder.close();
  assert.deepEqual(await pod.steps(pod), EVERYTHING);
  await pod.client.close();
  assert.deepEqual(await pod.stepsAt(group, address), REFUSED);
}

async function becomesAnother(node: LabNode): Promise<void> {
  const peer = await node.pod("right", contextFor("0a:55:44:33:27:10", VLAN));
  await peer.client.request();
  const pod = await VfioPod.start(node, "left", contextFor("0a:55:44:33:27:04", VLAN));
  const { pod: place } = pod.sandboxPod;
  const asVfio = pod.client.proposal().mechanismPreferences;
  const asKernel = node.client(pod.sandboxPod).proposal().mechanismPreferences;
  const become = (mechanismPreferences: typeof asVfio) =>
    pod.client.request({
      fds: [place.netns.fd],
      alter(request) {
        delete request.connection?.mechanism;
        request.mechanismPreferences = mechanismPreferences;
      },
    });
  const addresses = new Set<string>();
  const leave = async () => {
    await pod.client.close();
    await node.cleaned(); // a client that does not wait for it gets another VF
  };
  for (const round of ["first", "again"]) {
    await become(asKernel);
    addresses.add(functionOf(pod.client).address);
    assert.equal((await place.link("nsm-1"))?.mac, "0a:55:44:33:27:04", round);
    const asPeer = { ...pod.sandboxPod, client: pod.client };
    assert.notEqual(await answer(peer, asPeer), undefined, round);
    await leave();
    if (round === "again") break;
    await become(asVfio);
    assert.deepEqual(await place.links(), []);
    addresses.add(functionOf(pod.client).address);
    assert.deepEqual(await pod.steps(pod), EVERYTHING);
    await leave();
  }
  assert.equal(addresses.size, 1);
  await node.endPods(peer);
}

async function heldOpen(node: LabNode): Promise<void> {
  const pod = await VfioPod.start(node, "left", contextFor("0a:55:44:33:27:05", VLAN));
  await pod.client.request();
  const { address } = functionOf(pod.client);
  const holder = await pod.tries(pod);
  assert.deepEqual(holder.steps, EVERYTHING);
  // It cannot be taken from the program: the unbind would wait for it. Others do not.
  await assert.rejects(pod.client.close(), /a process has its IOMMU group/);
  const who = `process ${holder.pid} (vfio-client)`;
  await node.forwarder.line("who has it", ({ event, error }) => event === "call-failed" && `${error}`.includes(who));
  assert.equal(driverOf(address), "vfio-pci");
  await serves(node, "left");
  await serves(node, "right");
  await holder.close();
  await node.dropPod(pod.sandboxPod);
  await eventually(
    () => node.devices("left").filter(({ healthy }) => healthy).length,
    (healthy) => healthy === 7,
  );
  // The client that gets the same VF next has it as a network device.
  await everyFunctionServes(node, "left");
  assert.equal(driverOf(address), "igbvf");
}

async function unbindWaits(node: LabNode): Promise<void> {
  const pod = await VfioPod.start(node, "left", contextFor("0a:55:44:33:27:06", VLAN));
  await pod.client.request();
  const { address } = functionOf(pod.client);
  const holder = await pod.tries(pod);
  const unbind = writeAside("/sys/bus/pci/drivers/vfio-pci/unbind", address);
  for (const side of ["left", "right"] as const) for (let count = 0; count < 3; count += 1) await serves(node, side);
  assert.equal(unbind.isWaiting, true);
  assert.equal(healthyOf(node, "right"), VFS_PER_ADAPTER);
  await holder.close();
  await within(LIMIT_MS, "the unbind", unbind.ended);
  assert.equal(driverOf(address), "none");
  await eventually(
    () => node.devices("left").filter(({ healthy }) => !healthy),
    (unhealthy) => unhealthy.length === 1,
  );
  await pod.client.close();
  await node.dropPod(pod.sandboxPod);
  await node.untilHealthy();
  await everyFunctionServes(node, "left");
}

async function numberWaits(node: LabNode): Promise<void> {
  const pod = await VfioPod.start(node, "right", contextFor("0a:55:44:33:27:07", VLAN));
  await pod.client.request();
  const holder = await pod.tries(pod);
  const change = writeAside(`/sys/bus/pci/devices/${adapters.right}/sriov_numvfs`, "0");
  for (let count = 0; count < 3; count += 1) await serves(node, "left");
  assert.equal(change.isWaiting, true);
  assert.equal(healthyOf(node, "left"), VFS_PER_ADAPTER);
  await holder.close();
  await within(LIMIT_MS, "the change", change.ended);
  await eventually(
    () => healthyOf(node, "right"),
    (healthy) => healthy === 0,
  );
  await node.dropPod(pod.sandboxPod);
  operate(`${adapters.right}/sriov_numvfs`, String(VFS_PER_ADAPTER));
  await node.untilHealthy();
  await untilServed(node, "right");
}

function healthyOf(node: LabNode, side: Side): number {
  return node.devices(side).filter(({ healthy }) => healthy).length;
}

function functionOf({ connection }: Client): { readonly address: string; readonly group: string } {
  const { pciAddress = "", iommuGroup = "" } = connection?.mechanism?.parameters ?? {};
  return { address: pciAddress, group: iommuGroup };
}
