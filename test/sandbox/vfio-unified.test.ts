// VFIO where BPF programs say what a container may open, as on every unified host.
import assert from "node:assert/strict";
import { after } from "node:test";
import { commonStandIns } from "../../sandbox/nic/sysfs.ts";
import { BlockingWrites, CgroupFolder, deviceProgramsOf } from "../../src/kernel/index.ts";
import { runStories, type Scene } from "./scenes/story.ts";
import { groupOf, opening, UNIFIED_NEEDS, unifiedCgroups, vfioPod } from "./scenes/vfio-scene.ts";

const cgroups = unifiedCgroups();
after(() => cgroups?.close());

function withFolder<T>(path: string, act: (folder: CgroupFolder) => T): T {
  const folder = CgroupFolder.open(path, new BlockingWrites());
  try {
    return act(folder);
  } finally {
    folder.close();
  }
}

runStories(
  "VFIO with version 2 of cgroups",
  { machine: { vfioStandIns: commonStandIns }, cgroups },
  { "lets the containers of its pod open the group, and no other, until it is closed": lifeOfOne },
  UNIFIED_NEEDS,
);

async function lifeOfOne(scene: Scene): Promise<void> {
  // A client on a unified host does not know its cgroup.
  const [one, other] = [await vfioPod(scene, { cgroupDir: "" }), await vfioPod(scene, { cgroupDir: "" })];
  const path = `${cgroups?.path}/kubepods/besteffort/pod${one.allocation.podUid}/app`;
  const programs = () => withFolder(path, ({ fd }) => deviceProgramsOf(fd).ids.length);
  for (let count = 0; count < 5; count++) {
    await one.vfio.request();
    const group = groupOf(one.vfio);
    for (const { container } of [one, other]) await container.makeNodes(one.vfio.connection ?? assert.fail());
    assert.deepEqual(await opening(one.container, group), ["", ""]);
    assert.deepEqual(await opening(other.container, group), ["EPERM", "EPERM"]);
    assert.equal(programs(), 1);
    await one.vfio.close();
    assert.deepEqual(await opening(one.container, group), ["EPERM", "EPERM"]);
    assert.equal(programs(), 1);
  }
  scene.isMended = true; // the driver stays that of the last use
}
