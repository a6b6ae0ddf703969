import assert from "node:assert/strict";
import { adapters, groupMembers, turnAcsOff, VFS_PER_ADAPTER, vfAddress } from "./hardware.ts";
import { EVERYTHING } from "./hold-vf.ts";
import { answer, contextFor } from "./kernel-stories.ts";
import type { LabNode } from "./node.ts";
import type { Stage } from "./stage.ts";
import { REFUSED, VfioPod } from "./vfio-pod.ts";

const VLAN = 700;
const ANOTHERS_GROUP = /in an IOMMU group that another pod has \(0000:02:1/;

/** A node whose machine keeps VFs not apart. */
export async function sharedGroups(stage: Stage): Promise<void> {
  turnAcsOff(adapters.right);
  await stage.stories({
    "KERNEL works as everywhere": kernelWorks,
    "VFIO is refused where the adapter itself is in the group, and the error names it": (node) =>
      vfioIsRefused(
        node,
        /IOMMU group \d+ also holds .*0000:01:00\.0/,
        groupMembers("0000:01:10.0").includes(adapters.left),
      ),
    "a group of VFs only is one pod's: the other's VFIO and KERNEL are refused, until it is closed": groupIsOnePods,
  });
}

/** A node without an IOMMU. */
export const noIommuStories = {
  "KERNEL works as everywhere": kernelWorks,
  "VFIO is refused, with the reason": (node: LabNode) =>
    vfioIsRefused(node, /without an IOMMU group/, groupMembers("0000:01:10.0").length === 0),
};

async function groupIsOnePods(node: LabNode): Promise<void> {
  const members = groupMembers(vfAddress(adapters.right, 0));
  assert.equal(members.filter((member) => member.startsWith("0000:02:1")).length, VFS_PER_ADAPTER, String(members));
  assert.ok(!members.includes(adapters.right), String(members));
  const one = await VfioPod.start(node, "right", contextFor("0a:55:44:33:29:04", VLAN));
  const other = await VfioPod.start(node, "right", contextFor("0a:55:44:33:29:05", VLAN));
  const kernel = await node.pod("right", contextFor("0a:55:44:33:29:06", VLAN));
  await one.client.request();
  assert.deepEqual(await one.steps(one), EVERYTHING);
  for (const client of [other.client, kernel.client]) await assert.rejects(client.request(), ANOTHERS_GROUP);
  await one.client.close();
  await other.client.request();
  assert.deepEqual(await other.steps(other), EVERYTHING);
  assert.deepEqual(await one.steps(other), REFUSED);
  await assert.rejects(one.client.request(), ANOTHERS_GROUP);
  await other.client.close();
  await kernel.client.request();
  assert.equal((await kernel.pod.link("nsm-1"))?.up, true);
  await assert.rejects(one.client.request(), /in an IOMMU group that serves a kernel driver/);
  for (const { sandboxPod } of [one, other]) await node.dropPod(sandboxPod);
  await node.endPods(kernel);
}

async function kernelWorks(node: LabNode): Promise<void> {
  const one = await node.pod("left", contextFor("0a:55:44:33:29:01", VLAN));
  const other = await node.pod("right", contextFor("0a:55:44:33:29:02", VLAN));
  for (const { client } of [one, other]) await client.request();
  assert.notEqual(await answer(one, other), undefined);
  await node.endPods(one, other);
}

async function vfioIsRefused(node: LabNode, reason: RegExp, isAsMeant: boolean): Promise<void> {
  assert.ok(isAsMeant, "the guest's groups are not as this topology has them");
  const pod = await VfioPod.start(node, "left", contextFor("0a:55:44:33:29:03", VLAN));
  await assert.rejects(pod.client.request(), (error: Error) => {
    assert.match(error.message, reason);
    return true;
  });
  await node.dropPod(pod.sandboxPod);
  await kernelWorks(node);
}
