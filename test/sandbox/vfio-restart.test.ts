// The forwarder dies. Afterwards pods may open what the journal and kubelet say they have, and nothing else. Deaths in the
// middle of a call: killed-vfio.test.ts.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { commonStandIns } from "../../sandbox/nic/sysfs.ts";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { SANDBOX_VLAN } from "../../sandbox/sandbox.ts";
import { systemClock as clock, systemRandom } from "../../src/async/index.ts";
import { openJournal } from "../../src/journal/index.ts";
import { openStateFolder } from "../../src/kernel/index.ts";
import { parsePciAddress } from "../../src/pci/index.ts";
import { needs } from "../needs.ts";
import { CrashScene } from "./scenes/crash-scene.ts";
import { eventually } from "./scenes/story.ts";
import { groupOf, nothingGranted, opening, VFIO_NEEDS, type VfioPod, vfioPod } from "./scenes/vfio-scene.ts";

/** More than the reconciler waits between two looks. */
const PERMITTED = ["", ""];
const REFUSED = ["EPERM", "EPERM"];
const cgroups = PodCgroups.make();
after(() => cgroups?.close());

const shared = CrashScene.shared({ machine: { vfioStandIns: commonStandIns }, cgroups });

function story(name: string, scenario: (crash: CrashScene) => Promise<void>): void {
  test(name, async (t) => {
    if (!needs(t, ...VFIO_NEEDS)) return;
    await shared.run(scenario);
  });
}

describe("a forwarder that dies", () => {
  after(() => shared.close());

  story("leaves a VFIO connection as it is, for its client to refresh and close", async (crash) => {
    const [pod, other] = [await vfioPod(crash.scene), await vfioPod(crash.scene)];
    await pod.vfio.request();
    const group = groupOf(pod.vfio);
    for (const one of [pod, other]) await one.container.makeNodes(pod.vfio.connection ?? assert.fail());
    assert.equal(await pod.container.open(group), "");
    await crash.restart();
    assert.deepEqual(await opening(pod.container, group), PERMITTED);
    assert.deepEqual(await opening(other.container, group), REFUSED);
    await pod.vfio.request({ timeoutMs: 60_000 });
    assert.equal(groupOf(pod.vfio), group);
    await pod.container.close(group);
    await crash.restart();
    await pod.vfio.close({ timeoutMs: 60_000 });
    assert.deepEqual(await opening(pod.container, group), REFUSED);
    await nothingLeft(crash, pod);
    for (const one of [pod, other]) await endPod(crash, one);
  });

  story("leaves a VFIO connection as it is, though its locks are let go of one after the other", async (crash) => {
    const pod = await vfioPod(crash.scene);
    await pod.vfio.request();
    const group = groupOf(pod.vfio);
    await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
    assert.equal(await pod.container.open(group), "");
    // The next forwarder has the state folder already, while the kernel still closes files of this one.
    const { locks } = crash.scene.sandbox.machine;
    const { pf } = locks;
    let refusals = 3;
    const heldFor = (address: string) => (refusals-- > 0 ? undefined : pf(address));
    await crash.restart(async () => void Object.assign(locks, { pf: heldFor }));
    Object.assign(locks, { pf });
    assert.deepEqual(await opening(pod.container, group), PERMITTED);
    await pod.vfio.request({ timeoutMs: 60_000 });
    assert.equal(groupOf(pod.vfio), group);
    await pod.container.close(group);
    await pod.vfio.close({ timeoutMs: 60_000 });
    await nothingLeft(crash, pod);
    await endPod(crash, pod);
  });

  story("gets back the VF of a pod that ended meanwhile, clean", async (crash) => {
    const { scene } = crash;
    const pod = await vfioPod(scene);
    await pod.vfio.request();
    const { address, settings } = await scene.vfOf(pod.vfio);
    assert.equal(settings.vlan, SANDBOX_VLAN);
    await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
    assert.equal(await pod.container.open(groupOf(pod.vfio)), "");
    await crash.restart(() => endPod(crash, pod)); // no event reaches the next one: the cgroup is gone
    const own = () => scene.forwarder.node.inventory.get(parsePciAddress(address));
    await eventually(own, (vf) => vf?.connectionId === undefined && vf?.problem === undefined);
    const { pf = "", index = 0 } = own() ?? {};
    assert.equal((await scene.sandbox.machine.pfPort({ address: pf }).read(index)).vlan, 0);
    nothingGranted(cgroups ?? assert.fail());
  });

  story("gets a VF back whose connection it cannot know, when no process has it open any more", async (crash) => {
    const { scene } = crash;
    const pod = await vfioPod(scene);
    await pod.vfio.request();
    const group = groupOf(pod.vfio);
    const { address } = await scene.vfOf(pod.vfio);
    await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
    assert.equal(await pod.container.open(group), "");
    await crash.restart(() => forgetConnections(crash, pod.vfio.connection?.path?.pathSegments.at(2)?.id ?? ""));
    const own = () => scene.forwarder.node.inventory.get(parsePciAddress(address));
    const conditions = () => scene.forwarder.health.conditions().map(({ code, subject }) => `${code} ${subject}`);
    await eventually(conditions, (all) => all.includes(`vf-quarantined ${address}`));
    assert.match(own()?.problem ?? "", /of which nothing else is known/);
    assert.equal(await pod.container.tries("vfio"), "EPERM");
    assert.equal(
      (await scene.sandbox.machine.pfPort({ address: own()?.pf ?? "" }).read(own()?.index ?? 0)).vlan,
      SANDBOX_VLAN,
    );
    await pod.container.close(group);
    await eventually(own, (vf) => vf?.problem === undefined);
    assert.equal((await scene.sandbox.machine.pfPort({ address: own()?.pf ?? "" }).read(own()?.index ?? 0)).vlan, 0);
    await eventually(conditions, (all) => all.length === 0);
    await nothingLeft(crash, pod);
    await endPod(crash, pod);
  });

  story("takes away what nothing explains", async (crash) => {
    const pod = await vfioPod(crash.scene);
    await pod.vfio.request();
    const { device } = await crash.scene.forwarder.node.binder.vfio.deviceOf(
      parsePciAddress((await crash.scene.vfOf(pod.vfio)).address),
    );
    await pod.vfio.close();
    cgroups?.allow(pod.allocation.podUid, "app", device);
    await crash.restart();
    nothingGranted(cgroups ?? assert.fail());
    await endPod(crash, pod);
  });
});

/** The journal has lost the connection, but not its VF. */
async function forgetConnections({ scene: { sandbox }, crashes: { disk } }: CrashScene, id: string): Promise<void> {
  const folder = await openStateFolder(`${sandbox.folder}/state`, { disk, random: systemRandom });
  const { journal, found } = await openJournal({ file: await folder.openAppend("journal"), clock, onTrouble() {} });
  assert.ok(found.entries.has(`connection ${id}`));
  await journal.drop(`connection ${id}`);
  await journal.close();
}

async function nothingLeft({ scene }: CrashScene, pod: VfioPod): Promise<void> {
  const held = () =>
    scene.forwarder.node.inventory
      .snapshot()
      .filter(
        ({ problem, tokenId, connectionId }) => problem !== undefined || (connectionId && tokenId === pod.tokenId),
      );
  await eventually(held, (vfs) => vfs.length === 0);
  nothingGranted(cgroups ?? assert.fail());
}

async function endPod({ scene }: CrashScene, { name, container, allocation }: VfioPod): Promise<void> {
  await container.kill();
  await cgroups?.removePod(allocation.podUid);
  scene.sandbox.kubelet.free(name);
}
