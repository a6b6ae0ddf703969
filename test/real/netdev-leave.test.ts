// A Close while the pod has made more rules, or links on the VF's link, than can be removed meanwhile.
import assert from "node:assert/strict";
import { test } from "node:test";
import { attachNetdev, desiredNetdev } from "../../src/netdev/index.ts";
import { ip } from "../sandbox/scenes/ip.ts";
import { attachPartsOf, inWorld, linkNamed, picture, slowLinks, type World } from "../scenes/namespaces.ts";

const requested = {
  name: "nsm-1",
  addresses: ["10.0.0.1/24"],
  peerAddresses: [],
  routes: [],
  policies: [{ from: "10.0.0.0/24", protocol: "tcp", destinationPort: "80", routes: [{ prefix: "10.1.0.0/16" }] }],
  neighbours: [],
  vlan: 7,
};

interface Crowd {
  readonly rules: number;
  readonly uppers: number;
}

/** A client with so much of its own. */
async function crowded(world: World, { rules, uppers }: Crowd) {
  const { pod } = world;
  const parts = { ...attachPartsOf(world), links: slowLinks(world) };
  const attachment = await attachNetdev({ ...parts, desired: desiredNetdev(requested) });
  const [own] = await pod.rtnl.rules((rule) => rule.protocol === 110);
  for (let at = 1; at < rules; at++) await ip(pod.netns, `rule add from 10.9.0.${at} table ${own?.table} protocol 110`);
  for (let at = 0; at < uppers; at++) await ip(pod.netns, `link add link nsm-1 name mv${at} type macvlan mode bridge`);
  return { attachment, parts };
}

/** What there is after a Close, and after the driver has made another device. */
async function left(world: World, crowd: Crowd) {
  const { pod, host } = world;
  const { attachment, parts } = await crowded(world, crowd);
  const resisted = (await attachment.leave()).map(({ what }) => what);
  const macvlans = async () => (await pod.rtnl.links()).filter(({ name }) => name.startsWith("mv")).length;
  const after = {
    resisted,
    rules: (await pod.rtnl.rules((rule) => rule.protocol === 110)).length,
    uppers: await macvlans(),
    vlan: (await parts.vf.port.read(0)).vlan,
    isInHost: (await host.rtnl.linkByIndex(world.vf.index)) !== undefined,
  };
  await world.renew();
  assert.equal(await macvlans(), 0, "they end with the device");
  await linkNamed(host, "vf0");
  return after;
}

test("Attachment.leave() removes what can be removed within a second, and the link comes to the host", (t) =>
  inWorld(t, async (world) => {
    const after = await left(world, { rules: 1, uppers: 2 });
    assert.deepEqual(after, { resisted: [], rules: 0, uppers: 0, vlan: 0, isInHost: true });
  }));

test("Attachment.leave() leaves the link with its VLAN in the client when more lies on it than can be removed in time", (t) =>
  inWorld(t, async (world) => {
    const after = await left(world, { rules: 1, uppers: 5 });
    assert.deepEqual(after, { resisted: ["link"], rules: 0, uppers: 3, vlan: 7, isInHost: false });
  }));

test("Attachment.leave() has one second for rules and links together", (t) =>
  inWorld(t, async (world) => {
    const after = await left(world, { rules: 5, uppers: 1 });
    assert.deepEqual(after, { resisted: ["rules", "link"], rules: 2, uppers: 1, vlan: 7, isInHost: false });
  }));

test("Attachment.detach() has the same second, leaves link and VLAN when it is over, and restores the link that its driver makes then", (t) =>
  inWorld(t, async (world) => {
    const { host, pod } = world;
    const before = await picture(host);
    const { attachment, parts } = await crowded(world, { rules: 8, uppers: 5 });
    const whatOf = async (isRenewed: boolean) => (await attachment.detach({ isRenewed })).map(({ what }) => what);
    assert.deepEqual([await whatOf(false), (await parts.vf.port.read(0)).vlan], [["rules", "link"], 7]);
    await linkNamed(pod, "nsm-1");
    await world.renew();
    assert.deepEqual([await whatOf(true), (await parts.vf.port.read(0)).vlan], [[], 0]);
    assert.deepEqual(await picture(host), before);
  }));
