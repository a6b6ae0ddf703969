// VFIO from the Request to the last close: the kernel says what each process of a pod may open.
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { after } from "node:test";
import { commonStandIns } from "../../sandbox/nic/sysfs.ts";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { SANDBOX_VLAN } from "../../sandbox/sandbox.ts";
import type { VfSettings } from "../../src/netdev/index.ts";
import { parsePciAddress } from "../../src/pci/index.ts";
import { eventually, refusal, runStories, type Scene } from "./scenes/story.ts";
import { groupOf, nothingGranted, opening, VFIO_NEEDS, vfioPod } from "./scenes/vfio-scene.ts";

const cgroups = PodCgroups.make();
after(() => cgroups?.close());

runStories(
  "a VFIO connection",
  { machine: { vfioStandIns: commonStandIns }, cgroups },
  {
    "lets the containers of its pod open the group, and no other, until it is closed": lifeOfOne,
    "of a client that cannot name its cgroup is its token's pod's": emptyCgroupDir,
    "with a cgroup that is not the pod's is refused": badCgroupDirs,
    "is its cgroup's pod's where kubelet's records are silent, if the client names one pod": silentKubelet,
    "goes to no other client as long as a process has the group open": reclaiming,
    "gets the settings of its endpoint on the physical function, and leaves none": settings,
    "is shut to its pod until its settings are in force": settingsFirst,
    "writes nothing when it is refreshed": refresh,
    "becomes a KERNEL connection and back, and the endpoint does not notice": changes,
    "is had by a client that would rather have KERNEL where that cannot be": preferences,
    "of a pod that dies ends": podDies,
    "can be had and closed over and over": cycles,
  },
  VFIO_NEEDS,
);

const PERMITTED = ["", ""];
const REFUSED = ["EPERM", "EPERM"];

async function lifeOfOne(scene: Scene): Promise<void> {
  const [one, other] = [await vfioPod(scene), await vfioPod(scene)];
  const { mechanism } = await one.vfio.request();
  const [group, address] = [groupOf(one.vfio), mechanism?.parameters["pciAddress"] ?? ""];
  const { container: node, device } = await scene.forwarder.node.binder.vfio.deviceOf(parsePciAddress(address));
  assert.deepEqual(mechanism?.parameters, {
    tokenID: one.tokenId,
    cgroupDir: `kubepods/besteffort/pod${one.allocation.podUid}/*`,
    pciAddress: address,
    iommuGroup: group,
    vfioMajor: String(node.major),
    vfioMinor: String(node.minor),
    deviceMajor: String(device.major),
    deviceMinor: String(device.minor),
  });
  for (const { container } of [one, other]) await container.makeNodes(one.vfio.connection ?? assert.fail());
  assert.deepEqual(await opening(one.container, group), PERMITTED);
  assert.deepEqual(await opening(other.container, group), REFUSED);
  await other.vfio.request();
  assert.notEqual(groupOf(other.vfio), group);
  assert.deepEqual(await opening(other.container, group), ["", "EPERM"]);
  await one.vfio.close();
  assert.deepEqual(await opening(one.container, group), REFUSED);
  await other.vfio.close();
  done(scene);
}

async function emptyCgroupDir(scene: Scene): Promise<void> {
  const pod = await vfioPod(scene, { cgroupDir: "" });
  await pod.vfio.request();
  const group = groupOf(pod.vfio);
  await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
  assert.deepEqual(await opening(pod.container, group), PERMITTED);
  await pod.vfio.close();
  assert.deepEqual(await opening(pod.container, group), REFUSED);
  done(scene);
}

async function badCgroupDirs(scene: Scene): Promise<void> {
  const [pod, other] = [await vfioPod(scene), await vfioPod(scene)];
  const foreign = await other.container.cgroupDir();
  for (const [cgroupDir, code] of [
    [foreign, "PERMISSION_DENIED"],
    [`kubepods/besteffort/pod${pod.allocation.podUid}/../pod${other.allocation.podUid}/*`, "INVALID_ARGUMENT"],
    ["*", "INVALID_ARGUMENT"],
    ["/kubepods/*", "INVALID_ARGUMENT"],
    ["kubepods/besteffort/*/app", "INVALID_ARGUMENT"],
  ] as const) {
    const parameters = { tokenID: pod.tokenId, cgroupDir };
    const client = scene.direct(pod, { mechanism: "VFIO", parameters });
    await assert.rejects(client.request(), refusal(code, /Cannot take .* as the cgroup of a client/));
    await eventually(
      () => scene.forwarder.nsm.connectionCount,
      (count) => count === 0,
    );
    done(scene);
  }
}

async function silentKubelet(scene: Scene): Promise<void> {
  const [pod, other] = [await vfioPod(scene), await vfioPod(scene)];
  rmSync(`${scene.sandbox.folder}/plugins/kubelet_internal_checkpoint`); // the next device that is given out brings it back
  const dir = `kubepods/besteffort/pod${pod.allocation.podUid}/*`;
  for (const [cgroupDir, code] of [
    ["", "FAILED_PRECONDITION"],
    ["kubepods/besteffort/*", "INVALID_ARGUMENT"],
    [`/${dir}`, "INVALID_ARGUMENT"],
  ] as const) {
    const client = scene.direct(pod, { mechanism: "VFIO", parameters: { tokenID: pod.tokenId, cgroupDir } });
    await assert.rejects(client.request(), refusal(code, /./));
  }
  const client = scene.direct(pod, { mechanism: "VFIO", parameters: { tokenID: pod.tokenId, cgroupDir: dir } });
  await client.request();
  const group = groupOf(client);
  for (const { container } of [pod, other]) await container.makeNodes(client.connection ?? assert.fail());
  assert.deepEqual(await opening(pod.container, group), PERMITTED);
  assert.deepEqual(await opening(other.container, group), REFUSED);
  await client.close();
  assert.deepEqual(await opening(pod.container, group), REFUSED);
  done(scene);
}

async function reclaiming(scene: Scene): Promise<void> {
  const pod = await vfioPod(scene);
  await pod.vfio.request();
  const group = groupOf(pod.vfio);
  await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
  assert.equal(await pod.container.open(group), "");
  const { address } = await scene.vfOf(pod.vfio);
  const stateOf = () => scene.forwarder.node.inventory.snapshot().find((vf) => vf.address === address)?.state;
  const holder = new RegExp(`a process .*has its IOMMU group /dev/vfio/${group} open`);
  await assert.rejects(pod.vfio.close(), refusal("UNAVAILABLE", holder));
  assert.equal(stateOf(), "reclaiming");
  assert.equal((await settingsOf(scene, address)).vlan, SANDBOX_VLAN);
  assert.equal(await pod.container.tries("vfio"), "EPERM");
  nothingGranted(cgroups ?? assert.fail());
  await pod.container.close(group);
  await eventually(
    () => scene.forwarder.nsm.connectionCount,
    (count) => count === 0,
  );
  assert.equal(stateOf(), "reserved");
  done(scene);
}

async function settings(scene: Scene): Promise<void> {
  const pod = await vfioPod(scene);
  const free = await everySetting(scene);
  const { context } = await pod.vfio.request();
  const { settings: actual } = await scene.vfOf(pod.vfio);
  assert.deepEqual([actual.mac, actual.vlan], [context?.ethernetContext?.srcMac, SANDBOX_VLAN]);
  await pod.vfio.close();
  assert.deepEqual(await everySetting(scene), free);
  done(scene);
}

async function settingsFirst(scene: Scene): Promise<void> {
  const { machine } = scene.sandbox;
  const pod = await vfioPod(scene);
  for (let others = 1; others < 4; others++) await scene.pod(); // which have the other VFs: it gets the same one again
  await pod.vfio.request();
  const group = groupOf(pod.vfio);
  const { address } = await scene.vfOf(pod.vfio);
  await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
  await pod.vfio.close();
  const { pf = "" } = scene.forwarder.node.inventory.snapshot().find((one) => one.address === address) ?? {};
  const port = machine.pfPort({ address: pf });
  const write = port.write.bind(port);
  const seen: (readonly string[])[] = [];
  port.write = async (...change) => {
    await write(...change);
    seen.push(await opening(pod.container, group));
  };
  try {
    await pod.vfio.request();
    assert.equal(groupOf(pod.vfio), group);
  } finally {
    port.write = write;
  }
  assert.ok(seen.length > 0, "no setting was written");
  assert.deepEqual(new Set(seen.map(String)), new Set([String(REFUSED)]));
  assert.deepEqual(await opening(pod.container, group), PERMITTED);
  await pod.vfio.close();
  done(scene);
}

async function refresh(scene: Scene): Promise<void> {
  const pod = await vfioPod(scene);
  const first = await pod.vfio.request();
  scene.sandbox.changes.forget();
  const reported = scene.log.events.length;
  const again = await pod.vfio.request();
  assert.deepEqual(again.mechanism?.parameters, first.mechanism?.parameters);
  assert.deepEqual(scene.sandbox.changes.seen, []);
  assert.deepEqual(
    scene.log.events.slice(reported).filter(({ level }) => level !== "debug"),
    [],
  );
  await pod.vfio.close();
  done(scene);
}

async function changes(scene: Scene): Promise<void> {
  const { endpoint } = scene.sandbox;
  const pod = await vfioPod(scene, {});
  const [requested, closed] = [endpoint.requests.length, endpoint.closes.length];
  await pod.vfio.request();
  const group = groupOf(pod.vfio);
  await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
  const kernel = scene.direct(pod, { parameters: { name: "nsm-1", tokenID: pod.tokenId } });
  const asKernel = kernel.proposal().mechanismPreferences;
  const change = (mechanisms: typeof asKernel) =>
    pod.vfio.request({
      fds: [pod.pod.netns.fd],
      alter(request) {
        delete request.connection?.mechanism;
        request.mechanismPreferences = mechanisms;
      },
    });
  const asVfio = pod.vfio.proposal().mechanismPreferences;
  const changed = await change(asKernel);
  assert.equal(changed.mechanism?.type, "KERNEL");
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  assert.deepEqual(await opening(pod.container, group), REFUSED);
  assert.equal((await change(asVfio)).mechanism?.type, "VFIO");
  assert.deepEqual(await pod.pod.links(), []);
  // Where a driver takes long, the pod gets another VF.
  await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
  assert.deepEqual(await opening(pod.container, groupOf(pod.vfio)), PERMITTED);
  const ids = new Set(endpoint.requests.slice(requested).map(({ id }) => id));
  assert.deepEqual([ids.size, endpoint.requests.length - requested, endpoint.closes.length - closed], [1, 3, 0]);
  await pod.vfio.close();
  assert.equal(endpoint.closes.length - closed, 1);
  done(scene);
}

async function preferences(scene: Scene): Promise<void> {
  const { endpoint } = scene.sandbox;
  const pod = await vfioPod(scene);
  const requested = endpoint.requests.length;
  const badKernel = scene.direct(pod, { parameters: { name: "a/b", tokenID: pod.tokenId } }).proposal();
  const { mechanism } = await pod.vfio.request({
    fds: [pod.pod.netns.fd],
    alter: ({ mechanismPreferences: list }) => void list.unshift(...badKernel.mechanismPreferences),
  });
  assert.equal(mechanism?.type, "VFIO");
  assert.equal(endpoint.requests.length - requested, 1);
  await pod.vfio.close();
  const kernel = scene.direct(pod, { parameters: { name: "nsm-1", tokenID: pod.tokenId } });
  const both = await kernel.request({
    alter: ({ mechanismPreferences: list }) => void list.push(...pod.vfio.proposal().mechanismPreferences),
  });
  assert.equal(both.mechanism?.type, "KERNEL");
  await kernel.close();
  done(scene);
}

async function podDies(scene: Scene): Promise<void> {
  const pod = await vfioPod(scene);
  await pod.vfio.request();
  await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
  assert.equal(await pod.container.open(groupOf(pod.vfio)), "");
  await pod.container.kill();
  // Nothing is said by kubelet: the cgroup is enough.
  await cgroups?.removePod(pod.allocation.podUid);
  await eventually(
    () => scene.forwarder.nsm.connectionCount,
    (count) => count === 0,
  );
  done(scene);
}

async function cycles(scene: Scene): Promise<void> {
  const pod = await vfioPod(scene);
  for (let count = 0; count < 25; count++) {
    await pod.vfio.request();
    const group = groupOf(pod.vfio);
    await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
    assert.deepEqual(await opening(pod.container, group), PERMITTED);
    await pod.vfio.close();
    assert.deepEqual(await opening(pod.container, group), REFUSED);
  }
  done(scene);
}

/** What the physical function keeps of it. */
/** Of every VF, by its address. */
async function everySetting(scene: Scene): Promise<Readonly<Record<string, VfSettings>>> {
  const vfs = scene.forwarder.node.inventory.snapshot();
  return Object.fromEntries(
    await Promise.all(vfs.map(async ({ address }) => [address, await settingsOf(scene, address)])),
  );
}

async function settingsOf({ forwarder, sandbox }: Scene, address: string): Promise<VfSettings> {
  const vf = forwarder.node.inventory.snapshot().find((one) => one.address === address);
  assert.ok(vf);
  return sandbox.machine.pfPort({ address: vf.pf }).read(vf.index);
}

/** Nothing is granted any more; the VFs stay with the driver of their last use. */
function done(scene: Scene): void {
  nothingGranted(cgroups ?? assert.fail("no cgroups"));
  scene.isMended = true;
}
