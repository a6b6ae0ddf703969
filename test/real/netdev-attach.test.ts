import assert from "node:assert/strict";
import { test } from "node:test";
import { type Netns, Rtnl } from "../../src/kernel/index.ts";
import { changeText } from "../../src/netdev/change.ts";
import { attachNetdev, desiredNetdev, type NetdevError, type RequestedNetdev } from "../../src/netdev/index.ts";
import { bareNetdev } from "../../src/netdev/testing/bare-netdev.ts";
import { needs } from "../needs.ts";
import { attachPartsOf, inWorld, linkNamed, linksOf, picture, VF_MAC, type World } from "../scenes/namespaces.ts";

const full: RequestedNetdev = {
  name: "nsm-1",
  mtu: 1400,
  mac: "02:00:00:00:00:05",
  addresses: ["10.0.0.1/24", "2001:db8::1/64"],
  peerAddresses: ["10.9.0.2/32", "2001:db8:9::2/128"],
  routes: [{ prefix: "10.1.0.0/16" }, { prefix: "2001:db8:1::/48" }, { prefix: "10.2.0.0/16", nextHop: "10.0.0.77" }],
  policies: [
    {
      from: "10.0.0.0/24",
      protocol: "tcp",
      destinationPort: "80-90",
      routes: [{ prefix: "10.3.0.0/16", nextHop: "10.0.0.3" }],
    },
    { from: "2001:db8::/64", protocol: "udp", sourcePort: "53", routes: [] },
    { destinationPort: "443", protocol: "tcp", routes: [] },
  ],
  neighbours: [
    { address: "10.0.0.9", mac: "02:00:00:00:00:09" },
    { address: "2001:db8::9", mac: "02:00:00:00:00:0a" },
  ],
};

/** What `full` looks like in the pod, beside what was there before. */
const FULL_PICTURE = [
  "address 10.0.0.1/24 on nsm-1 by 110",
  "address 2001:db8::1/64 on nsm-1 by 110",
  "link nsm-1  02:00:00:00:00:05 mtu 1400 up",
  "neighbour 10.0.0.9 02:00:00:00:00:09 on nsm-1 by 110",
  "neighbour 2001:db8::9 02:00:00:00:00:0a on nsm-1 by 110",
  "route 0.0.0.0/0 via link on nsm-1 table 1 by 110",
  "route ::/0 via link on nsm-1 table 2 by 110",
  "route 10.1.0.0/16 via 10.9.0.2 on nsm-1 table 254 by 110",
  "route 10.2.0.0/16 via 10.0.0.77 on nsm-1 table 254 by 110",
  "route 10.3.0.0/16 via 10.0.0.3 on nsm-1 table 3 by 110",
  "route 10.9.0.2/32 via link on nsm-1 table 254 by 110",
  "route 2001:db8:1::/48 via 2001:db8:9::2 on nsm-1 table 254 by 110",
  "route 2001:db8:9::2/128 via link on nsm-1 table 254 by 110",
  "rule IPv4 from 10.0.0.0/24 6 * 80-90 table 3 by 110",
  "rule IPv4 from all 6 * 443-443 table 1 by 110",
  "rule IPv6 from 2001:db8::/64 17 53-53 * table 2 by 110",
].sort();

function attach(world: World, requested: RequestedNetdev) {
  return attachNetdev({ ...attachPartsOf(world), desired: desiredNetdev(requested) });
}

async function added(world: World, before: readonly string[]): Promise<string[]> {
  return (await picture(world.pod)).filter((line) => !before.includes(line));
}

test("attachNetdev() makes everything exactly as requested, and detach() leaves both namespaces as they were", (t) =>
  inWorld(t, async (world) => {
    const { host, pod, vf } = world;
    await host.rtnl.setLink(vf.index, { up: true, addAltNames: ["vf0-alternative"] });
    const before = [await picture(host), await picture(pod)];
    const attachment = await attach(world, full);
    assert.deepEqual(await added(world, before[1] ?? []), FULL_PICTURE);
    assert.equal(await host.rtnl.linkByIndex(vf.index), undefined);
    assert.deepEqual(await attachment.detach(), []);
    assert.deepEqual([await picture(host), await picture(pod)], before);
    assert.deepEqual(await attachment.detach(), []);
  }));

test("attachNetdev() lets any group of the pod ping, and IPv6 in where it was off", (t) =>
  // A root made by `unshare -r` may not name groups that it does not have.
  inWorld(t, async (world) => {
    if (!needs(t, "root")) return;
    const { pod } = world;
    pod.netns.writeSysctl("net/ipv6/conf/default/disable_ipv6", "1");
    const attachment = await attach(world, full);
    assert.match(pod.netns.readSysctl("net/ipv4/ping_group_range"), /^0\s+2147483647$/);
    assert.equal(pod.netns.readSysctl("net/ipv6/conf/nsm-1/disable_ipv6"), "0");
    assert.deepEqual(await added(world, []).then((lines) => lines.filter((line) => line.includes("2001:db8::1/64"))), [
      "address 2001:db8::1/64 on nsm-1 by 110",
    ]);
    await attachment.detach();
  }));

test("Attachment.differences() is empty for what is in force, and update() then changes nothing", (t) =>
  inWorld(t, async (world) => {
    const attachment = await attach(world, full);
    assert.deepEqual(await attachment.differences(desiredNetdev(full)), []);
    const { writes } = Rtnl.totals;
    await attachment.update(desiredNetdev(full));
    assert.equal(Rtnl.totals.writes, writes);
    assert.ok(writes > 20);
    await attachment.detach();
  }));

/** As kernels before 5.18 answer, which keep no mark on an address. */
function withoutMarks(rtnl: Rtnl): Rtnl {
  return new Proxy(rtnl, {
    get(kernel, key: keyof Rtnl) {
      if (key === "addresses") {
        const addresses: Rtnl["addresses"] = async (...requested) => {
          return (await kernel.addresses(...requested)).map((address) => ({ ...address, protocol: 0 }));
        };
        return addresses;
      }
      const value: unknown = Reflect.get(kernel, key);
      return typeof value === "function" ? value.bind(kernel) : value;
    },
  });
}

test("Attachment.update() removes an address of an earlier update, also where the kernel keeps no mark on it", (t) =>
  inWorld(t, async (world) => {
    const openRtnl = (netns: Netns) => withoutMarks(Rtnl.open({ netns }));
    const links = linksOf(world.host, { linkOwnerOf: world.of.linkOwnerOf, openRtnl });
    const desired = (...addresses: readonly string[]) => desiredNetdev({ ...bareNetdev, addresses });
    const attachment = await attachNetdev({ ...attachPartsOf(world), links, desired: desired("10.0.0.1/24") });
    await attachment.update(desired("10.0.0.1/24", "10.0.1.1/24"));
    await attachment.update(desired("10.0.1.1/24"));
    const { index } = await linkNamed(world.pod, "nsm-1");
    const actual = (await world.pod.rtnl.addresses(index)).map(({ address }) => address);
    assert.deepEqual(
      actual.filter((address) => address.startsWith("10.")),
      ["10.0.1.1"],
    );
    assert.deepEqual(await attachment.detach(), []);
  }));

test("Attachment.update() changes only what differs", (t) =>
  inWorld(t, async (world) => {
    const empty = await picture(world.pod);
    const attachment = await attach(world, full);
    const next: RequestedNetdev = {
      ...full,
      addresses: ["10.0.0.1/24", "10.0.0.2/24", "2001:db8::1/96"],
      routes: [
        { prefix: "10.1.0.0/16", nextHop: "10.0.0.8" },
        { prefix: "2001:db8:1::/48", nextHop: "2001:db8::8" },
      ],
      policies: full.policies.slice(1),
      neighbours: [{ address: "10.0.0.9", mac: "02:00:00:00:00:0b" }],
    };
    const differences = await attachment.differences(desiredNetdev(next));
    assert.deepEqual(differences.map(changeText), [
      "remove-address 2001:db8::1/64",
      "add-address 10.0.0.2/24",
      "add-address 2001:db8::1/96",
      "add-route 10.1.0.0/16 via 10.0.0.8 table 254",
      "add-route 2001:db8:1::/48 via 2001:db8::8 table 254 metric 1023",
      "add-neighbour 10.0.0.9 at 02:00:00:00:00:0b",
      "remove-rule IPv4 from 10.0.0.0/24 proto 6 dport 80-90 table 3",
      "remove-route 10.3.0.0/16 via 10.0.0.3 table 3",
      "remove-route 10.1.0.0/16 via 10.9.0.2 table 254",
      "remove-route 10.2.0.0/16 via 10.0.0.77 table 254",
      "remove-route 2001:db8:1::/48 via 2001:db8:9::2 table 254 metric 1024",
      "remove-neighbour 2001:db8::9",
    ]);
    await attachment.update(desiredNetdev(next));
    assert.deepEqual(await attachment.differences(desiredNetdev(next)), []);
    await attachment.update(desiredNetdev(bareNetdev));
    assert.deepEqual(await added(world, empty), ["link nsm-1  02:00:00:00:00:05 mtu 1500 up"]);
    await attachment.update(desiredNetdev({ ...bareNetdev, name: "other" }));
    assert.deepEqual(await added(world, empty), ["link other  02:00:00:00:00:05 mtu 1500 up"]);
    await attachment.detach();
    assert.equal((await linkNamed(world.host, "vf0")).address, VF_MAC);
  }));

test("attachNetdev() touches nothing that is not its own", (t) =>
  inWorld(t, async (world) => {
    const { pod } = world;
    await pod.rtnl.createLink({ kind: "veth", name: "eth0", peer: { name: "far", netns: world.wire.netns } });
    const eth0 = await linkNamed(pod, "eth0");
    await pod.rtnl.setLink(eth0.index, { up: true });
    await pod.rtnl.addAddress({ ifindex: eth0.index, address: "192.168.0.2", prefixLength: 24 });
    await pod.rtnl.addAddress({ ifindex: eth0.index, address: "fd00::2", prefixLength: 64, noDad: true });
    const defaults = { ifindex: eth0.index, prefixLength: 0, protocol: 3 };
    await pod.rtnl.addRoute({ ...defaults, family: 4, destination: "0.0.0.0", gateway: "192.168.0.1" });
    await pod.rtnl.addRoute({ ...defaults, family: 6, destination: "::", gateway: "fd00::1" });
    const rule = {
      family: 4,
      from: { address: "10.0.0.0", prefixLength: 24 },
      ipProtocol: 6,
      destinationPorts: { first: 80, last: 90 },
    } as const;
    await pod.rtnl.addRule({ ...rule, table: 1 });
    const before = await picture(pod);
    const greedy = { ...full, routes: [{ prefix: "0.0.0.0/0" }, { prefix: "::/0" }] };
    const attachment = await attach(world, greedy);
    const nsm = await linkNamed(pod, "nsm-1");
    await pod.rtnl.addAddress({ ifindex: nsm.index, address: "10.50.0.1", prefixLength: 24 });
    const actual = await picture(pod);
    assert.deepEqual(
      before.filter((line) => !actual.includes(line)),
      [],
    );
    assert.ok(actual.includes("rule IPv4 from 10.0.0.0/24 6 * 80-90 table 4 by 110"));
    const toDefault = (await pod.rtnl.routes()).filter((route) => route.prefixLength === 0 && route.table === 254);
    assert.deepEqual(
      toDefault.map((route) => [route.family, route.ifindex === nsm.index, route.metric]),
      [
        [4, true, 0],
        [4, false, 0],
        [6, true, 1023],
        [6, false, 1024],
      ],
    );
    assert.deepEqual(await attachment.differences(desiredNetdev(greedy)), []);
    await attachment.update(desiredNetdev(bareNetdev));
    assert.ok((await picture(pod)).includes("address 10.50.0.1/24 on nsm-1 by 0"));
    await attachment.update(desiredNetdev(greedy));
    await attachment.detach();
    assert.deepEqual(await picture(pod), before);
  }));

test("attachNetdev() refuses a name that is taken and leaves the link alone", (t) =>
  inWorld(t, async (world) => {
    const { pod, host } = world;
    await pod.rtnl.createLink({ kind: "bridge", name: "nsm-1" });
    await pod.rtnl.setLink((await linkNamed(pod, "nsm-1")).index, { addAltNames: ["nsm-2"] });
    const before = [await picture(host), await picture(pod)];
    for (const name of ["nsm-1", "nsm-2", "lo"]) {
      await assert.rejects(attach(world, { ...full, name }), (error: NetdevError) => {
        assert.equal(error.fault.kind, "name-taken");
        assert.match(error.message, new RegExp(`Cannot name the interface "${name}": link (nsm-1|lo) `));
        return true;
      });
    }
    assert.deepEqual([await picture(host), await picture(pod)], before);
  }));

test("attachNetdev() takes everything back when a step fails", (t) =>
  inWorld(t, async (world) => {
    const { pod, host } = world;
    const before = [await picture(host), await picture(pod)];
    const impossible = { ...full, routes: [{ prefix: "10.1.0.0/16", nextHop: "10.0.0.1" }] };
    await assert.rejects(attach(world, impossible), { name: "KernelError", code: "EINVAL", message: /gateway/ });
    assert.deepEqual([await picture(host), await picture(pod)], before);
  }));

test("attachNetdev() refuses the host's own namespace", (t) =>
  inWorld(t, async (world) => {
    const client = world.host.netns;
    const again = attachNetdev({ ...attachPartsOf(world), client, desired: desiredNetdev(full) });
    await assert.rejects(again, /host's own network namespace/);
  }));
