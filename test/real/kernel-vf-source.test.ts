import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../src/async/index.ts";
import { KernelError, type Netns, Rtnl } from "../../src/kernel/index.ts";
import type { AskedNetdev, PfPort, VfSettings } from "../../src/netdev/index.ts";
import { type DriverBinder, Inventory, parsePciAddress } from "../../src/sriov/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { VfHolds } from "../../src/vf/held-vf.ts";
import { kernelVfSource } from "../../src/vf/kernel-vf-source.ts";
import { inWorld, picture } from "../namespaces.ts";

const asked: AskedNetdev = {
  name: "nsm-1",
  vlan: 5,
  addresses: ["10.0.0.1/24"],
  peerAddresses: [],
  routes: [],
  policies: [],
  neighbours: [],
};

test("attach() that fails and cannot be taken back at once comes home with the next detach()", (t) =>
  inWorld(t, async (world) => {
    const pf = parsePciAddress("01:00.0");
    const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
    const common = { pf, iommuGroup: undefined, numaNode: undefined, kernelDriver: "igbvf", driver: "igbvf" };
    inventory.sync(pf, [{ ...common, address: parsePciAddress("01:10.0"), index: 0, resources: ["d/x"] }]);
    const caller = new AbortController();
    const port = new StubbornPort(() => caller.abort(new Error("the caller has gone")));
    const parts = {
      journal: { keepVf: async () => {}, forgetVf() {} },
      unmet: new Map(),
      inventory,
      binder: {
        netdevOf: async () => ({ ifname: "vf0", ifindex: world.vf.index }),
        netdevNow: async () => undefined,
        driverOf: async () => "igbvf",
        isPresent: async () => true,
      } as unknown as DriverBinder,
      host: world.host.netns,
      openRtnl: (netns: Netns) => Rtnl.open({ netns }),
      linkOwnerOf: world.of.linkOwnerOf,
      verifyLink: async () => {},
      pfDoor: () => ({ port, settings: {} }),
      watchPod: async () => () => {},
      clock: systemClock,
      log: silentLog,
    };
    const source = kernelVfSource({
      ...parts,
      holds: new VfHolds({
        ...parts,
        survey: { judge() {}, refusals: [] },
        hostUse: { refuse: async () => {} },
        isLinkSound: async () => true,
      }),
    });
    const before = [await picture(world.host), await picture(world.pod)];
    const tokenId = inventory.devicesOf("d/x")[0]?.id ?? "";
    const vf = source.take({ connectionId: "c1", tokenId });

    await assert.rejects(
      vf.attach(world.pod.netns.fd, asked, caller.signal),
      /the caller has gone; and cannot restore its vf vlan/,
    );
    assert.equal(port.settings.vlan, 5, "the VLAN of the client is still there");
    await assert.rejects(vf.detach("home"), /the PF is broken/);
    assert.equal(inventory.ofConnection("c1")?.state, "reclaiming");
    port.refuses = false;
    await vf.detach("home");
    await vf.giveBack();

    assert.equal(port.settings.vlan, 0);
    assert.equal(inventory.snapshot()[0]?.state, "idle");
    assert.deepEqual([await picture(world.host), await picture(world.pod)], before);
  }));

/** Takes a VLAN and does not let go of it while `refuses`. */
class StubbornPort implements PfPort {
  readonly pf = "0000:01:00.0 (enp1s0f0, driver igb)";
  settings: VfSettings = { vlan: 0 };
  refuses = true;
  readonly #onVlan: () => void;

  constructor(onVlan: () => void) {
    this.#onVlan = onVlan;
  }

  async read(): Promise<VfSettings> {
    return this.settings;
  }

  async write(_vf: number, change: VfSettings): Promise<void> {
    if (this.refuses && change.vlan === 0) throw new KernelError("set VLAN 0", 5, "the PF is broken");
    this.settings = { ...this.settings, ...change };
    if (change.vlan === 5) this.#onVlan();
  }
}
