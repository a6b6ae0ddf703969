import assert from "node:assert/strict";
import { test } from "node:test";
import { inMemory } from "../../test/scenes/memory-world.ts";
import { unknownState } from "./attachment-state.ts";
import { NO_MAC } from "./vf-settings-through-pf.ts";

test("unknownState() has a link down, with the usual MTU, no VLAN and no address of its PF", () =>
  inMemory(async (world) => {
    const link = await world.plug();
    await world.host.rtnl.setLink(link.index, { mtu: 1400, up: true });
    const address = link.parentDevice ?? assert.fail("it sits on a VF");
    const state = await unknownState(world.links, {
      address,
      ifindex: link.index,
      name: "eth1",
      vfLink: { device: async () => "a device" },
    });
    const { name, mtu, up, altNames } = state.original;
    assert.deepEqual([name, mtu, up, altNames], ["eth1", 1500, false, link.altNames]);
    assert.equal(state.device, "a device");
    assert.deepEqual(state.vfBefore, { mac: NO_MAC, vlan: 0 });
  }));
