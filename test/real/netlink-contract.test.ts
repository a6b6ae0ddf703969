import assert from "node:assert/strict";
import { test } from "node:test";
import { busInfoOf } from "../../src/kernel/ethtool-ioctl.ts";
import { type KernelError, type NetlinkEvent, Netns, Rtnl } from "../../src/kernel/index.ts";
import { linkContracts } from "../contracts/links.ts";
import { needs } from "../needs.ts";
import { ip } from "../sandbox/scenes/ip.ts";
import { inWorld, linkNamed, openPlace } from "../scenes/namespaces.ts";

for (const [says, contract] of Object.entries(linkContracts)) {
  test(`Rtnl and a veth: ${says}`, (t) =>
    inWorld(t, ({ host, pod, vf }) => contract({ host, pod, vf, known: () => reported(host.rtnl) })));
}

/** On the loopback device. */
const MARK = { ifindex: 1, address: "127.0.0.77", prefixLength: 32 };

/** All that watch have heard of what was before: a change of our own comes behind it. */
async function reported(rtnl: Rtnl): Promise<void> {
  const heard = Promise.withResolvers<void>();
  const stop = rtnl.watch(["ipv4-address"], (event) => {
    if ("address" in event && event.address.address === MARK.address) heard.resolve();
  });
  const alive = setInterval(() => {}, 1_000); // waiting for events does not keep a process alive by itself
  await rtnl.addAddress(MARK);
  await rtnl.deleteAddress(MARK);
  await heard.promise;
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate); // other sockets have theirs in the same turn
  clearInterval(alive);
  stop();
}

test("Rtnl.setLink() changes name, MTU, address, altnames, bridge and state, and reads them back", (t) =>
  inWorld(t, async ({ host, vf }) => {
    await host.rtnl.createLink({ kind: "bridge", name: "br0" });
    const bridge = await linkNamed(host, "br0");
    const change = { name: "renamed", mtu: 1400, address: "02:00:00:00:00:07", master: bridge.index, up: true };
    await host.rtnl.setLink(vf.index, { ...change, addAltNames: ["one-long-alternative-name", "alt2"] });
    const link = await linkNamed(host, "renamed");
    assert.deepEqual([link.index, link.mtu, link.address, link.master], [vf.index, 1400, change.address, bridge.index]);
    assert.deepEqual([link.up, link.carrier, link.kind, bridge.kind], [true, true, "veth", "bridge"]);
    assert.deepEqual(link.altNames, ["one-long-alternative-name", "alt2"]);
    assert.equal((await host.rtnl.linkByName("one-long-alternative-name"))?.index, vf.index);
    await host.rtnl.setLink(vf.index, { up: false, master: 0, removeAltNames: ["alt2"] });
    const after = await linkNamed(host, "renamed");
    assert.deepEqual([after.up, after.master, after.altNames], [false, undefined, ["one-long-alternative-name"]]);
    assert.equal(await host.rtnl.linkByName("alt2"), undefined);
  }));

test("Rtnl.setLink() moves a link, down, under another name, while the event loop continues", (t) =>
  inWorld(t, async ({ host, pod, vf }) => {
    await host.rtnl.setLink(vf.index, { up: true });
    let turns = 0;
    const ticking = setInterval(() => turns++, 1);
    await host.rtnl.setLink(vf.index, { netns: pod.netns, name: "moved" });
    clearInterval(ticking);
    assert.ok(turns >= 1);
    assert.equal(await host.rtnl.linkByIndex(vf.index), undefined);
    assert.deepEqual([(await linkNamed(pod, "moved")).up, await pod.rtnl.linkByName("vf0")], [false, undefined]);
  }));

test("Rtnl keeps addresses with their maker, and routes, rules and neighbours with theirs", (t) =>
  inWorld(t, async ({ pod, host, vf }) => {
    const { rtnl } = host;
    const ifindex = vf.index;
    await rtnl.setLink(ifindex, { up: true });
    await rtnl.addAddress({ ifindex, address: "10.0.0.1", prefixLength: 24, broadcast: "10.0.0.255", protocol: 110 });
    await rtnl.addAddress({ ifindex, address: "2001:db8::1", prefixLength: 64, noDad: true, protocol: 110 });
    const ours = (await rtnl.addresses(ifindex)).filter((address) => address.protocol === 110);
    assert.deepEqual(
      ours.map((address) => [address.address, address.prefixLength, address.permanent, address.family]),
      [
        ["10.0.0.1", 24, true, 4],
        ["2001:db8::1", 64, true, 6],
      ],
    );
    const route = {
      family: 4,
      destination: "10.1.0.0",
      prefixLength: 16,
      gateway: "10.7.7.7",
      ifindex,
      protocol: 110,
    } as const;
    await rtnl.addRoute({ ...route, onlink: true, table: 70_000 });
    await rtnl.addRoute({ ...route, onlink: true, prepend: true });
    const routes = (await rtnl.routes()).filter((actual) => actual.protocol === 110);
    assert.deepEqual(routes.map((actual) => [actual.destination, actual.gateway, actual.onlink, actual.table]).sort(), [
      ["10.1.0.0", "10.7.7.7", true, 254],
      ["10.1.0.0", "10.7.7.7", true, 70_000],
    ]);
    const selector = { ipProtocol: 17, sourcePorts: { first: 1, last: 2 }, destinationPorts: { first: 53, last: 53 } };
    const from = { address: "2001:db8::", prefixLength: 64 };
    await rtnl.addRule({ family: 6, from, ...selector, table: 70_000, protocol: 110 });
    const [rule] = (await rtnl.rules()).filter((actual) => actual.protocol === 110);
    assert.deepEqual(rule, { family: 6, from, ...selector, table: 70_000, priority: 32_765, protocol: 110 });
    await rtnl.addNeighbour({ ifindex, address: "10.0.0.9", mac: "02:00:00:00:00:09", protocol: 110 });
    await rtnl.addNeighbour({ ifindex, address: "10.0.0.9", mac: "02:00:00:00:00:0a", protocol: 110 });
    const neighbours = (await rtnl.neighbours(ifindex)).filter((actual) => actual.permanent);
    assert.deepEqual(
      neighbours.map((actual) => [actual.address, actual.mac, actual.protocol]),
      [["10.0.0.9", "02:00:00:00:00:0a", 110]],
    );
    await rtnl.deleteNeighbour({ ifindex, address: "10.0.0.9" });
    await rtnl.deleteRule({ family: 6, from, ...selector, table: 70_000, priority: 32_765, protocol: 110 });
    await rtnl.deleteRoute({ ...route, table: 70_000 });
    await rtnl.deleteRoute(route);
    for (const address of ours) await rtnl.deleteAddress(address);
    const left = [
      ...(await rtnl.addresses()),
      ...(await rtnl.routes()),
      ...(await rtnl.rules()),
      ...(await rtnl.neighbours()),
    ];
    assert.deepEqual(
      left.filter((entry) => entry.protocol === 110),
      [],
    );
    assert.deepEqual(await pod.rtnl.addresses(), []);
  }));

const refusals: readonly {
  says: string;
  act: (rtnl: Rtnl, index: number) => Promise<void>;
  code: string;
  detail?: RegExp;
}[] = [
  { says: "a link that is not there", act: (rtnl) => rtnl.deleteLink(999), code: "ENODEV" },
  { says: "a name that is taken", act: (rtnl) => rtnl.createLink({ kind: "bridge", name: "vf0" }), code: "EEXIST" },
  {
    says: "an address twice",
    act: async (rtnl, ifindex) => {
      await rtnl.addAddress({ ifindex, address: "10.0.0.1", prefixLength: 24 });
      await rtnl.addAddress({ ifindex, address: "10.0.0.1", prefixLength: 24 });
    },
    code: "EEXIST",
    detail: /already assigned|^$/, // Debian 12's 6.1 has no words for it yet
  },
  {
    says: "an MTU below the driver's",
    act: (rtnl, index) => rtnl.setLink(index, { mtu: 20 }),
    code: "EINVAL",
    detail: /mtu less than device minimum/,
  },
  {
    says: "a gateway that is not reachable",
    act: async (rtnl, ifindex) => {
      await rtnl.setLink(ifindex, { up: true });
      await rtnl.addRoute({ family: 4, destination: "10.9.0.0", prefixLength: 16, gateway: "99.1.1.1", ifindex });
    },
    code: "ENETUNREACH",
    detail: /Nexthop has invalid gateway/,
  },
  {
    says: "a route of bits behind its length",
    act: (rtnl, ifindex) => rtnl.addRoute({ family: 4, destination: "10.9.0.1", prefixLength: 16, ifindex }),
    code: "EINVAL",
    detail: /Invalid prefix for given prefix length/,
  },
  {
    says: "a rule that is not there",
    act: (rtnl) => rtnl.deleteRule({ family: 4, table: 77, protocol: 110 }),
    code: "ENOENT",
  },
  {
    says: "VF settings of a link that is no PF",
    act: (rtnl, index) => rtnl.setVf(index, 0, { mac: "02:00:00:00:00:01" }),
    code: "EOPNOTSUPP",
  },
];
for (const { says, act, code, detail } of refusals) {
  test(`Rtnl gives the kernel's code and words for ${says}`, (t) =>
    inWorld(t, async ({ host, vf }) => {
      await assert.rejects(act(host.rtnl, vf.index), (error: KernelError) => {
        assert.match(error.code, code === "EOPNOTSUPP" ? /^E(OP)?NOTSUPP?$/ : new RegExp(`^${code}$`));
        if (detail) assert.match(error.detail ?? "", detail);
        return true;
      });
    }));
}

test("Rtnl.vfInfos() is empty for a link that is no PF", (t) =>
  inWorld(t, async ({ host, vf }) => assert.deepEqual(await host.rtnl.vfInfos(vf.index), [])));

test("Rtnl lists hundreds of links while others come and go", (t) =>
  inWorld(t, async ({ host }) => {
    const other = Rtnl.open({ netns: host.netns });
    for (let i = 0; i < 60; i++) await host.rtnl.createLink({ kind: "bridge", name: `b${i}` });
    const churn = (async () => {
      for (let i = 0; i < 20; i++) {
        await other.createLink({ kind: "bridge", name: `c${i}` });
        await other.deleteLink((await linkNamed({ netns: host.netns, rtnl: other }, `c${i}`)).index);
      }
    })();
    for (let i = 0; i < 40; i++) {
      const names = new Set((await host.rtnl.links()).map((link) => link.name));
      for (let each = 0; each < 60; each++) assert.ok(names.has(`b${each}`));
    }
    await churn;
    other.close();
  }));

test("Rtnl.watch() reports links and addresses, until it is stopped", async (t) => {
  if (!needs(t, "netns", "bridge")) return;
  const place = openPlace();
  const seen: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const stop = place.rtnl.watch(["link", "ipv4-address"], (event: NetlinkEvent) => {
    if (event.kind === "lost" || event.kind === "default-route") return;
    seen.push(`${event.kind} ${"link" in event ? event.link.name : event.address.address}`);
    if (event.kind === "gone-link") resolve();
  });
  await place.rtnl.createLink({ kind: "bridge", name: "br0" });
  const { index } = await linkNamed(place, "br0");
  await place.rtnl.addAddress({ ifindex: index, address: "10.0.0.1", prefixLength: 32 });
  await place.rtnl.deleteLink(index);
  // Waiting for events does not keep a process alive by itself.
  const alive = setInterval(() => {}, 1_000);
  await promise;
  clearInterval(alive);
  assert.equal(seen[0], "new-link br0");
  assert.ok(seen.includes("new-address 10.0.0.1") && seen.includes("gone-link br0"));
  stop();
  const before = seen.length;
  const others = Promise.withResolvers<void>();
  const stopOthers = place.rtnl.watch(["link"], (event) => void (event.kind === "new-link" && others.resolve()));
  await place.rtnl.createLink({ kind: "bridge", name: "br1" });
  const aliveToo = setInterval(() => {}, 1_000);
  await others.promise; // the remaining watchers have heard of it
  clearInterval(aliveToo);
  stopOthers();
  assert.equal(seen.length, before);
  place.rtnl.close();
  place.netns.close();
});

test("Rtnl stays in its namespace after the handle of it is closed, and refuses requests once it is closed itself", async (t) => {
  if (!needs(t, "netns")) return;
  const netns = Netns.create();
  const rtnl = Rtnl.open({ netns });
  netns.close();
  assert.deepEqual(
    (await rtnl.links()).map((link) => link.name),
    ["lo"],
  );
  rtnl.close();
  await assert.rejects(rtnl.links(), { code: "EBADF" });
});

test("busInfoOf() reads what drivers say over ethtool, in the namespace of the link", (t) =>
  inWorld(t, async ({ host, pod }) => {
    await host.rtnl.createLink({ kind: "bridge", name: "br0" });
    // br_getinfo, net/bridge/br_device.c; veth_get_drvinfo, drivers/net/veth.c, says nothing of a bus.
    assert.equal(busInfoOf(host.netns, "br0"), "N/A");
    assert.equal(busInfoOf(host.netns, "vf0"), undefined);
    assert.throws(() => busInfoOf(pod.netns, "br0"), { name: "KernelError", code: "ENODEV" });
    assert.throws(() => busInfoOf(host.netns, "a-name-of-16-byte"), RangeError);
  }));

test("Rtnl.namespaceId() is how a veth names the namespace of its other end", (t) =>
  inWorld(t, async ({ host, pod, wire, vf }) => {
    const port = await wire.rtnl.linkByName("port0");
    assert.equal(port?.peerIndex, vf.index);
    assert.notEqual(port?.peerNetnsId, undefined);
    assert.equal(await wire.rtnl.namespaceId(host.netns), port?.peerNetnsId);
    assert.equal(await wire.rtnl.namespaceId(pod.netns), undefined);
    await host.rtnl.setLink(vf.index, { netns: pod.netns });
    const moved = (await wire.rtnl.linkByName("port0"))?.peerNetnsId;
    assert.equal(await wire.rtnl.namespaceId(pod.netns), moved);
    assert.notEqual(moved, port?.peerNetnsId);
  }));

test("Rtnl.defaultRoutes() knows those of every table and next hop, of all links and of one", (t) =>
  inWorld(t, async ({ host, vf }) => {
    const { rtnl, netns } = host;
    await ip(netns, "link add other type veth peer name far");
    for (const name of ["vf0", "other", "far"]) await ip(netns, `link set ${name} up`);
    await ip(netns, "address add 10.0.0.1/24 dev vf0");
    await ip(netns, "-6 address add 2001:db8::1/64 dev vf0 nodad");
    const other = (await linkNamed(host, "other")).index;
    for (const route of [
      "route add default via 10.0.0.2",
      "route add 10.9.0.0/16 dev vf0",
      "route add default table 77 nexthop dev vf0 nexthop dev other",
      "route add default table 78 dev other",
      "route add unreachable default metric 4000",
      "-6 route add default via 2001:db8::2",
      "-6 route add default table 77 nexthop via 2001:db8::3 nexthop via fe80::9 dev other",
    ]) {
      await ip(netns, route);
    }
    const texts = async (ifindex?: number) =>
      (await rtnl.defaultRoutes(ifindex))
        .map(({ family, table, gateway, ifindexes }) => [family, table, gateway, ...ifindexes.toSorted()].join(" "))
        .toSorted();
    const both = [vf.index, other].toSorted().join(" ");
    const own = [
      `4 254 10.0.0.2 ${vf.index}`,
      `4 77  ${both}`,
      `6 254 2001:db8::2 ${vf.index}`,
      `6 77  ${both}`,
    ].toSorted();
    assert.deepEqual(await texts(), [...own, `4 78  ${other}`].toSorted());
    assert.deepEqual(await texts(vf.index), own);
    assert.deepEqual(await texts(4_000_000), [], "of a link that has gone");
  }));

test("Rtnl.linksNamedOrAbove() knows the named ones, and what lies on one of the namespace, and no others", (t) =>
  inWorld(t, async ({ host, pod }) => {
    const { netns } = host;
    await ip(netns, "link add link vf0 name mac0 type macvlan mode bridge");
    await ip(netns, "link add br0 type bridge");
    await host.rtnl.createLink({ kind: "veth", name: "apart", peer: { name: "apart", netns: pod.netns } });
    const found = await host.rtnl.linksNamedOrAbove(new Set(["vf0"]));
    assert.deepEqual(found.map(({ name }) => name).toSorted(), ["mac0", "vf0"]);
    const all = await host.rtnl.links();
    assert.deepEqual(
      found.toSorted((a, b) => a.index - b.index),
      all.filter(({ name }) => ["mac0", "vf0"].includes(name)),
    );
  }));
