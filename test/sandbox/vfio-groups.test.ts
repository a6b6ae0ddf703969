// VFs that share an IOMMU group: a process that opens the group reaches all of them, so it is one pod's.
import assert from "node:assert/strict";
import { after } from "node:test";
import { commonStandIns } from "../../sandbox/nic/sysfs.ts";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { SANDBOX_RESOURCE } from "../../sandbox/sandbox.ts";
import { until } from "../scenes/until.ts";
import { eventually, refusal, runStories, type Scene } from "./scenes/story.ts";
import { groupOf, nothingGranted, VFIO_NEEDS, type VfioPod, vfioPod } from "./scenes/vfio-scene.ts";

const cgroups = PodCgroups.make();
after(() => cgroups?.close());

runStories(
  "VFIO with two VFs in each IOMMU group",
  { machine: { vfioStandIns: commonStandIns, iommu: "pairs", pfs: 1, vfsPerPf: 4 }, cgroups },
  {
    "gives two pods two groups, and a third one an error that says why": threePods,
    "brings two connections of one pod in one group back, the first one with the second": twoOfOnePod,
    "leaves a group alone that serves a kernel driver": besideKernel,
  },
  VFIO_NEEDS,
);

runStories(
  "VFIO with the physical function in the group of its virtual ones",
  { machine: { vfioStandIns: commonStandIns, iommu: "with-pf", pfs: 1, vfsPerPf: 4 }, cgroups },
  { "is refused, and the error names it": withPf },
  VFIO_NEEDS,
);

async function threePods(scene: Scene): Promise<void> {
  const [first, second, third] = [await vfioPod(scene), await vfioPod(scene), await vfioPod(scene)];
  await Promise.all([first.vfio.request(), second.vfio.request()]);
  const groups = [groupOf(first.vfio), groupOf(second.vfio)];
  assert.equal(new Set(groups).size, 2);
  const taken = (await scene.vfOf(first.vfio)).address;
  const other = new RegExp(`in an IOMMU group that another pod has \\(${taken}\\)`);
  await assert.rejects(third.vfio.request(), refusal("RESOURCE_EXHAUSTED", other));
  await first.vfio.close();
  await third.vfio.request();
  assert.equal(groupOf(third.vfio), groups[0]);
  for (const { vfio } of [second, third]) await vfio.close();
  done(scene);
}

async function twoOfOnePod(scene: Scene): Promise<void> {
  const pod = await vfioPod(scene);
  await pod.vfio.request();
  const group = groupOf(pod.vfio);
  const own = (await scene.vfOf(pod.vfio)).address;
  const sibling = scene.forwarder.node.inventory
    .snapshot()
    .find(({ iommuGroup, address }) => String(iommuGroup) === group && address !== own);
  let tokenId = "";
  const turn = async () => {
    const { envs } = await scene.sandbox.kubelet.allocate({ pod: pod.name, resource: SANDBOX_RESOURCE });
    tokenId = envs[`NSM_SRIOV_TOKENS_${SANDBOX_RESOURCE}`] ?? fail();
  };
  const isSiblings = () => scene.forwarder.node.inventory.get(sibling?.address ?? fail())?.tokenId === tokenId;
  await turn();
  await until("kubelet gives the pod the other VF of the group", isSiblings, { turn });
  const second = scene.direct(pod, { mechanism: "VFIO", parameters: { tokenID: tokenId, cgroupDir: "" } });
  await second.request();
  assert.equal(groupOf(second), group);
  await pod.container.makeNodes(second.connection ?? fail());
  assert.equal(await pod.container.open(group), "");
  const also = new RegExp(
    `Its pod also has ${sibling?.address} of that group: this one is free when that one is closed`,
  );
  await assert.rejects(pod.vfio.close(), refusal("UNAVAILABLE", also));
  assert.equal(await pod.container.tries(group), "", "the second one has it still");
  await pod.container.close(group);
  await second.close();
  await eventually(
    () => scene.forwarder.nsm.connectionCount,
    (count) => count === 0,
  );
  done(scene);
}

function fail(): never {
  return assert.fail();
}

async function besideKernel(scene: Scene): Promise<void> {
  const pods: VfioPod[] = [await vfioPod(scene), await vfioPod(scene)];
  const [pod, other] = pods;
  assert.ok(pod && other);
  await other.client.request(); // as a network device
  await pod.vfio.request();
  const groupsOf = (use: string) =>
    scene.forwarder.node.inventory.snapshot().flatMap((vf) => (vf.use === use ? [vf.iommuGroup] : []));
  assert.notDeepEqual(groupsOf("kernel"), groupsOf("vfio"));
  assert.equal((await other.pod.link("nsm-1"))?.up, true);
  for (const client of [pod.vfio, other.client]) await client.close();
  done(scene);
}

async function withPf(scene: Scene): Promise<void> {
  const pod = await vfioPod(scene);
  await assert.rejects(pod.vfio.request(), refusal("RESOURCE_EXHAUSTED", /its IOMMU group 1 also holds 0000:01:00\.0/));
  await scene.serves(pod); // as a network device
  done(scene);
}

function done(scene: Scene): void {
  nothingGranted(cgroups ?? assert.fail("no cgroups"));
  scene.isMended = true;
}
