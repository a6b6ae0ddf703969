// The Go original gives way to this forwarder while a pod has a VF by VFIO: its rules `rwm` in the pod's cgroup, and nothing else.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { commonStandIns } from "../../sandbox/nic/sysfs.ts";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { parsePciAddress } from "../../src/pci/index.ts";
import { needs } from "../needs.ts";
import { CrashScene } from "./scenes/crash-scene.ts";
import { forgetState } from "./scenes/left-by-original.ts";
import { eventually, refusal } from "./scenes/story.ts";
import { groupOf, nothingGranted, opening, VFIO_NEEDS, type VfioPod, vfioPod } from "./scenes/vfio-scene.ts";

const PERMITTED = ["", ""];
const REFUSED = ["EPERM", "EPERM"];
const cgroups = PodCgroups.make();
after(() => cgroups?.close());

const shared = CrashScene.shared({ machine: { vfioStandIns: commonStandIns }, cgroups });

interface Left {
  readonly pod: VfioPod;
  readonly group: string;
  readonly address: ReturnType<typeof parsePciAddress>;
}

/** Plays it from the moment in which this forwarder is there; the pod has its group open. */
function story(name: string, scenario: (crash: CrashScene, left: Left) => Promise<void>): void {
  test(name, async (t) => {
    if (!needs(t, ...VFIO_NEEDS)) return;
    await shared.run(async (crash) => {
      const pod = await vfioPod(crash.scene);
      await pod.vfio.request();
      const group = groupOf(pod.vfio);
      await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
      assert.equal(await pod.container.open(group), "");
      const address = parsePciAddress((await crash.scene.vfOf(pod.vfio)).address);
      const { container, device } = await crash.scene.forwarder.node.binder.vfio.deviceOf(address);
      await crash.restart(async () => {
        forgetState(crash);
        for (const one of [container, device]) cgroups?.allow(pod.allocation.podUid, "app", one, "rwm");
      });
      await crash.refreshBystander();
      await scenario(crash, { pod, group, address });
      nothingGranted(cgroups ?? assert.fail());
      await pod.container.kill();
      await cgroups?.removePod(pod.allocation.podUid);
      crash.scene.sandbox.kubelet.free(pod.name);
      const vf = () => crash.scene.forwarder.node.inventory.get(address);
      await eventually(vf, (now) => now?.connectionId === undefined && now?.problem === undefined);
      const { pf = "", index = 0 } = vf() ?? {};
      const settings = await crash.scene.sandbox.machine.pfPort({ address: pf }).read(index);
      assert.deepEqual([settings.vlan, settings.mac], [0, "00:00:00:00:00:00"]);
    });
  });
}

/** The pod has what it had, and no other can open it. */
async function keeps(crash: CrashScene, { pod, group, address }: Left): Promise<void> {
  await pod.vfio.request({ timeoutMs: 60_000 });
  assert.deepEqual([groupOf(pod.vfio), (await crash.scene.vfOf(pod.vfio)).address], [group, address]);
  assert.deepEqual(await opening(pod.container, group), PERMITTED);
}

async function closes({ pod, group }: Left): Promise<void> {
  await pod.container.close(group);
  await pod.vfio.close({ timeoutMs: 60_000 });
  assert.deepEqual(await opening(pod.container, group), REFUSED);
}

describe("a pod that the Go original gave a VF by VFIO", () => {
  after(() => shared.close());

  story("keeps it open when its client heals, and loses all access when that closes", async (crash, left) => {
    assert.deepEqual(await opening(left.pod.container, left.group), PERMITTED);
    const codes = crash.scene.forwarder.node.inventory.get(left.address)?.conditions.map(({ code }) => code);
    assert.deepEqual(codes, ["open-to-pod"]);
    await keeps(crash, left);
    await keeps(crash, left);
    await closes(left);
  });

  story("keeps it though this forwarder is killed before that, and after", async (crash, left) => {
    await crash.restart();
    await keeps(crash, left);
    await crash.restart();
    await keeps(crash, left);
    await closes(left);
  });

  story("keeps it when its Request fails", async (crash, left) => {
    await assert.rejects(
      left.pod.vfio.request({
        alter({ connection }) {
          if (connection) connection.networkService = "served-by-none";
          if (connection) connection.networkServiceEndpointName = "";
        },
      }),
      refusal("NOT_FOUND", /served-by-none/),
    );
    assert.deepEqual(await opening(left.pod.container, left.group), PERMITTED);
    await keeps(crash, left);
    await closes(left);
  });

  story("gives it back by its end, though its client never heals", async (crash, left) => {
    await left.pod.container.kill();
    await cgroups?.removePod(left.pod.allocation.podUid);
    await eventually(
      () => crash.scene.forwarder.node.inventory.get(left.address)?.conditions,
      (conditions) => conditions?.length === 0,
    );
  });
});
