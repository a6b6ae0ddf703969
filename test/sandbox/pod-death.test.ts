// A pod that ends without a word: its cgroup goes, and the kernel reports it. Kubelet's list would say so a minute later.
import assert from "node:assert/strict";
import { after } from "node:test";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { eventually, runStories, type Scene } from "./scenes/story.ts";

const cgroups = PodCgroups.make();
after(() => cgroups?.close());

runStories(
  "a pod with a KERNEL connection that dies without a Close",
  { cgroups },
  { "gives its VF back at once, and another pod keeps its own": podDies },
  ["root", "netns", "veth", "bridge", "cgroup1-devices"],
);

async function podDies(scene: Scene): Promise<void> {
  const [dying, living] = [await scene.pod(), await scene.pod()];
  for (const pod of [dying, living]) await pod.client.request();
  assert.equal(scene.forwarder.nsm.connectionCount, 2);
  await cgroups?.removePod(dying.allocation.podUid);
  await eventually(
    () => scene.forwarder.nsm.connectionCount,
    (count) => count === 1,
  );
  const stateOf = (token: string) =>
    scene.forwarder.node.inventory.snapshot().find(({ tokenId }) => tokenId === token)?.state;
  await scene.cleaned();
  // Kubelet has not taken the token back yet: its VF is restored, and reserved for it.
  assert.deepEqual(
    [dying, living].map(({ tokenId }) => stateOf(tokenId)),
    ["reserved", "ready"],
  );
  await living.client.close();
}
