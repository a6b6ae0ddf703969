import assert from "node:assert/strict";
import { groupMembers } from "./hardware.ts";
import { answer, wish } from "./kernel-stories.ts";
import type { LabNode } from "./node.ts";
import { VfioPod } from "./vfio-pod.ts";

const VLAN = 700;

/** A node whose machine keeps functions not apart. */
export const sharedGroupStories = {
  "KERNEL works as everywhere": kernelWorks,
  "VFIO is refused, with the members of the group that stand in the way": (node: LabNode) =>
    vfioIsRefused(node, /IOMMU group \d+ also holds .*0000:01:00\.0/, groupMembers("0000:01:10.0").length > 1),
};

/** A node without an IOMMU. */
export const noIommuStories = {
  "KERNEL works as everywhere": kernelWorks,
  "VFIO is refused, with the reason": (node: LabNode) =>
    vfioIsRefused(node, /without an IOMMU group/, groupMembers("0000:01:10.0").length === 0),
};

async function kernelWorks(node: LabNode): Promise<void> {
  const one = await node.pod("left", wish("0a:55:44:33:29:01", VLAN));
  const other = await node.pod("right", wish("0a:55:44:33:29:02", VLAN));
  for (const { client } of [one, other]) await client.request();
  assert.notEqual(await answer(one, other), undefined);
  await node.endPods(one, other);
}

async function vfioIsRefused(node: LabNode, reason: RegExp, isAsMeant: boolean): Promise<void> {
  assert.ok(isAsMeant, "the guest's groups are not as this topology has them");
  const pod = await VfioPod.start(node, "left", wish("0a:55:44:33:29:03", VLAN));
  await assert.rejects(pod.client.request(), (error: Error) => {
    assert.match(error.message, reason);
    return true;
  });
  await node.dropPod(pod.sandboxPod);
  await kernelWorks(node);
}
