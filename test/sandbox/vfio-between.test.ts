// A VF that VFIO has between two pods that have it as a network device: the latter gets what the former got, and the host has back
// what it had set.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { commonStandIns } from "../../sandbox/nic/sysfs.ts";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { needs } from "../needs.ts";
import { ip } from "./scenes/ip.ts";
import { eventually, type Scene, sharedScene } from "./scenes/story.ts";
import { nextTenant, seen } from "./scenes/tenant.ts";
import { VFIO_NEEDS, vfioPod } from "./scenes/vfio-scene.ts";

const NAME = "enp1s0f0v0";
const cgroups = PodCgroups.make();
const shared = sharedScene({ machine: { pfs: 1, vfsPerPf: 1, vfioStandIns: commonStandIns }, cgroups });
after(() => cgroups?.close());

/** A pod has the VF by VFIO, with an address and a VLAN of its endpoint. */
async function vfioTenant(scene: Scene): Promise<void> {
  const { vfio } = await vfioPod(scene);
  await vfio.request();
  assert.notEqual((await scene.vfOf(vfio)).adminMac, undefined);
  await vfio.close();
  await scene.endPods();
}

async function restart(scene: Scene): Promise<void> {
  await scene.sandbox.stopForwarder();
  scene.forwarder = await scene.sandbox.startForwarder();
  await scene.sandbox.kubelet.until("worker.domain/10G", (devices) => devices.some(({ healthy }) => healthy));
}

async function madeAgainMeanwhile(scene: Scene): Promise<void> {
  const { machine } = scene.sandbox;
  const { vfio } = await vfioPod(scene);
  await vfio.request();
  const [{ pf, index } = assert.fail()] = scene.forwarder.node.inventory.snapshot();
  machine.faults.loseUevents(1000);
  await machine.devices.writeText(`${pf}/sriov_numvfs`, "0");
  await machine.devices.writeText(`${pf}/sriov_numvfs`, "1");
  machine.faults.clear();
  const port = machine.pfPort({ address: pf });
  const ofHost = { mac: "02:00:00:00:00:77", vlan: 77 };
  await port.write(index, ofHost);
  await vfio.close();
  const { mac, vlan } = await port.read(index);
  assert.deepEqual({ mac, vlan }, ofHost);
  await scene.endPods();
  await port.write(index, { mac: "00:00:00:00:00:00", vlan: 0 });
}

describe("a VF that VFIO has in between", () => {
  after(() => shared.close());

  for (const [when, between] of [
    ["at once", async () => {}],
    ["over a restart", restart],
  ] as const) {
    test(`is what it was for the next pod, ${when}`, async (t) => {
      if (!needs(t, ...VFIO_NEEDS)) return;
      await shared.run(async (scene) => {
        const { machine } = scene.sandbox;
        await ip(machine.netns, `link set ${NAME} txqueuelen 555 mtu 1400 alias of-the-operator`);
        const before = await seen(machine.netns, NAME);
        const [first] = scene.forwarder.node.inventory.snapshot();
        const { pf = "", index = 0 } = first ?? {};
        const tenant = await nextTenant(scene);
        await tenant.end();
        await vfioTenant(scene);
        assert.equal(machine.pfPort({ address: pf }).adminMac(index), undefined, "the VF is not pinned");
        await between(scene);
        await vfioTenant(scene);
        assert.equal(machine.pfPort({ address: pf }).adminMac(index), undefined, "nor by the next one");
        const next = await nextTenant(scene);
        assert.deepEqual(next.gets, tenant.gets);
        await next.end();
        assert.deepEqual(await seen(machine.netns, NAME), before);
      });
    });
  }

  test("is as the host had it where the host takes it back", async (t) => {
    if (!needs(t, ...VFIO_NEEDS)) return;
    await shared.run(async (scene) => {
      const { machine } = scene.sandbox;
      await ip(machine.netns, `link set ${NAME} txqueuelen 556 alias of-the-host`);
      const before = await seen(machine.netns, NAME);
      const [{ address, kernelDriver } = assert.fail()] = scene.forwarder.node.inventory.snapshot();
      await vfioTenant(scene);
      await machine.devices.writeText(`${address}/driver_override`, "\n");
      await machine.drivers.writeText("vfio-pci/unbind", address);
      await machine.drivers.writeText(`${kernelDriver}/bind`, address);
      const now = () => seen(machine.netns, NAME).catch(() => undefined);
      await eventually(now, (link) => link?.settings["alias"] === before.settings["alias"]);
      await eventually(
        () => scene.forwarder.node.inventory.get(address)?.conditions.map(({ code }) => code),
        (codes) => codes?.length === 0,
      );
      assert.deepEqual(await now(), before);
    });
  });

  test("and that was made again unseen is as the host has it since", async (t) => {
    if (!needs(t, ...VFIO_NEEDS)) return;
    await shared.run(async (scene) => {
      const { machine } = scene.sandbox;
      await ip(machine.netns, `link set ${NAME} txqueuelen 557 alias of-the-host`);
      await vfioTenant(scene);
      const [{ address, pf } = assert.fail()] = scene.forwarder.node.inventory.snapshot();
      machine.faults.loseUevents(1000);
      await machine.devices.writeText(`${pf}/sriov_numvfs`, "0");
      await machine.devices.writeText(`${pf}/sriov_numvfs`, "1");
      await ip(machine.netns, `link set ${NAME} txqueuelen 558`);
      const before = await seen(machine.netns, NAME);
      machine.faults.clear();
      machine.announce({ action: "lost", devpath: "", subsystem: "", fields: {} });
      await eventually(
        () => scene.log.of("vf-made-again").map(({ vf }) => vf),
        (vfs) => vfs.includes(address),
      );
      assert.deepEqual(await seen(machine.netns, NAME), before);
      const tenant = await nextTenant(scene);
      await tenant.end();
      assert.deepEqual(await seen(machine.netns, NAME), before);
    });
  });

  test("and that is made again while its pod has it stays as the host has it since", async (t) => {
    if (!needs(t, ...VFIO_NEEDS)) return;
    await shared.run(madeAgainMeanwhile);
  });
});
