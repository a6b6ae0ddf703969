// A VF's address, which is its own and its PF's: on a real link whose driver is as igbvf with igb, or as one that takes the PF's word.
import assert from "node:assert/strict";
import { test } from "node:test";
import { igbRtnl } from "../../sandbox/nic/igb-links.ts";
import type { NicPf } from "../../sandbox/nic/nic.ts";
import { PretendPfPort } from "../../sandbox/nic/pf-port.ts";
import { Errno, KernelError, type Link, type Netns, type OpenRtnl, Rtnl } from "../../src/kernel/index.ts";
import {
  attachNetdev,
  desiredNetdev,
  NetdevAttachment,
  type PfPort,
  type RequestedNetdev,
  unknownState,
} from "../../src/netdev/index.ts";
import { attachPartsOf, inWorld, linkNamed, linksOf, picture, VF_MAC, type World } from "../scenes/namespaces.ts";

const NO_MAC = "00:00:00:00:00:00";
const [CLIENTS, OPERATORS, OTHER] = ["02:00:00:00:00:05", "02:00:00:00:00:06", "02:00:00:00:00:07"];
const requested: RequestedNetdev = {
  name: "nsm-1",
  mac: CLIENTS,
  vlan: 7,
  addresses: ["10.0.0.1/24"],
  peerAddresses: [],
  routes: [],
  policies: [],
  neighbours: [],
};

function optionsFor(world: World, { port, openRtnl }: { readonly port: PfPort; readonly openRtnl: OpenRtnl }) {
  const links = linksOf(world.host, { ...world.of, openRtnl });
  const vf = { port, index: 0, settings: {} };
  return { ...attachPartsOf(world), links, vf, desired: desiredNetdev(requested) };
}

function isVfLink(world: World, link: Pick<Link, "kind" | "peerIndex">): boolean {
  return link.kind === "veth" && link.peerIndex === world.vf.peerIndex;
}

/** igb, and igbvf on the world's link. */
function igbCard(world: World) {
  const pf = { address: "0000:01:00.0", nativeDriver: "igb", vfs: [{}] } as unknown as NicPf;
  const port = new PretendPfPort(pf, async () => {});
  port.choose(0, VF_MAC);
  const choose = (link: Link, mac: string) => (isVfLink(world, link) ? port.choose(0, mac) : undefined);
  return { port, openRtnl: (netns: Netns) => igbRtnl(Rtnl.open({ netns }), { choose }) };
}

test("attachNetdev() gives an igb VF an address, another one and its own again, and leaves it as free as it was", (t) =>
  inWorld(t, async (world) => {
    const before = [await picture(world.host), await picture(world.pod)];
    const card = igbCard(world);
    const attachment = await attachNetdev(optionsFor(world, card));
    assert.equal((await linkNamed(world.pod, "nsm-1")).address, CLIENTS);
    assert.equal(card.port.adminMac(0), CLIENTS);
    await attachment.update(desiredNetdev({ ...requested, mac: OTHER }));
    assert.deepEqual([(await linkNamed(world.pod, "nsm-1")).address, card.port.adminMac(0)], [OTHER, OTHER]);
    assert.deepEqual(await attachment.detach(), []);
    assert.deepEqual([await picture(world.host), await picture(world.pod)], before);
    assert.deepEqual([(await card.port.read(0)).mac, card.port.adminMac(0)], [VF_MAC, undefined]);
  }));

for (const operators of [OPERATORS, VF_MAC]) {
  test(`attachNetdev() leaves an igb VF whose operator has set ${operators} with that, and with an own address of ${VF_MAC}`, (t) =>
    inWorld(t, async (world) => {
      const before = [await picture(world.host), await picture(world.pod)];
      const card = igbCard(world);
      await card.port.write(0, { mac: operators });
      const attachment = await attachNetdev(optionsFor(world, card));
      assert.deepEqual([(await linkNamed(world.pod, "nsm-1")).address, card.port.adminMac(0)], [CLIENTS, CLIENTS]);
      assert.deepEqual(await attachment.detach(), []);
      assert.deepEqual([await picture(world.host), await picture(world.pod)], before);
      assert.equal(card.port.adminMac(0), operators);
    }));
}

test("detach() of an unknown link takes its client's address off the PF, which names what the link has then", (t) =>
  inWorld(t, async (world) => {
    const card = igbCard(world);
    card.port.choose(0, CLIENTS);
    await world.host.rtnl.setLink(world.vf.index, { address: CLIENTS });
    await card.port.write(0, { mac: CLIENTS });
    const { port } = card;
    const options = optionsFor(world, card);
    const state = await unknownState(options.links, { ...options, name: "vf0" });
    const attachment = new NetdevAttachment({ ...options, client: undefined, state });
    assert.deepEqual(await attachment.detach(), []);
    assert.deepEqual([port.adminMac(0), (await port.read(0)).mac], [undefined, CLIENTS]);
    assert.equal((await linkNamed(world.host, "vf0")).address, CLIENTS);
  }));

/** A PF that takes no zero, and resets the VF at its word: the link has that address then, and takes no other. */
function wordCard(world: World) {
  let mac = OPERATORS;
  const writes: string[] = [];
  const find = async () => {
    for (const place of [world.host, world.pod]) {
      const link = (await place.rtnl.links()).find((one) => isVfLink(world, one));
      if (link) return { place, link };
    }
    return assert.fail("the link is nowhere");
  };
  const port: PfPort = {
    pf: "0000:01:00.0 (enp1s0f0, driver other)",
    read: async () => ({ mac, vlan: 7 }),
    async write(_vf, change) {
      if (change.mac === undefined) return;
      writes.push(change.mac);
      if (change.mac === NO_MAC) throw new KernelError("set mac", Errno.EINVAL);
      mac = change.mac;
      const { place, link } = await find();
      await place.rtnl.setLink(link.index, { address: mac });
    },
  };
  const openRtnl = (netns: Netns) => {
    const rtnl = Rtnl.open({ netns });
    const setLink: Rtnl["setLink"] = async (index, change) => {
      if (change.address !== undefined && change.address !== mac) throw new KernelError("set address", Errno.EACCES);
      return await Rtnl.prototype.setLink.call(rtnl, index, change);
    };
    return Object.assign(rtnl, { setLink });
  };
  return { port, openRtnl, writes, mac: () => mac };
}

test("attachNetdev() leaves the address to a PF that never lets go of it, there and back", (t) =>
  inWorld(t, async (world) => {
    const card = wordCard(world);
    const attachment = await attachNetdev(optionsFor(world, card));
    assert.deepEqual([(await linkNamed(world.pod, "nsm-1")).address, card.mac()], [CLIENTS, CLIENTS]);
    const left = await attachment.detach();
    assert.deepEqual(
      left.map(({ what }) => what),
      ["address"],
    );
    // The PF has what it had; the link had another address than its PF's word before, and such a driver never lets it.
    assert.equal(card.mac(), OPERATORS);
    assert.equal((await linkNamed(world.host, "vf0")).address, OPERATORS);
  }));
