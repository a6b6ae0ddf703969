// What holds of a network device of a VF in its namespaces, over rtnetlink: the kernel with a veth, and the links in memory
// that a simulation has in its place (sandbox/simulation/).
import assert from "node:assert/strict";
import type { KernelError, Link, NetlinkEvent, Netns, Rtnl } from "../../src/kernel/index.ts";

/** A namespace and a socket in it. */
interface LinksPlace {
  readonly netns: Netns;
  readonly rtnl: Rtnl;
}

/** A host with a link that is down, and an empty pod. */
export interface LinksSubject {
  readonly host: LinksPlace;
  readonly pod: LinksPlace;
  readonly vf: Link;
  /** Resolves when the events of what has been done so far have arrived. */
  known(): Promise<void>;
}

type Contract = (subject: LinksSubject) => Promise<void>;

/** Every contract by its sentence. */
export const linkContracts: Readonly<Record<string, Contract>> = {
  "a link is reported back with the name, MTU, address, altnames and state that it was given": changes,
  "a link moves down, under another name, and leaves what was on it": moves,
  "altnames move with their link, and none is given twice": altNames,
  "addresses, routes, rules and neighbours are kept with who made them, until they are deleted": entries,
  "a link that goes down loses its routes and its IPv6 addresses": goesDown,
  "a route of the same place goes before or is refused, as it was requested": prepends,
  "a watcher gets links and addresses, in their order, until it stops": watches,
  ...refusals(),
};

async function changes({ host: { rtnl }, vf }: LinksSubject): Promise<void> {
  const change = { name: "renamed", mtu: 1400, address: "02:00:00:00:00:07", up: true };
  await rtnl.setLink(vf.index, { ...change, addAltNames: ["one-long-alternative-name", "alt2"] });
  const link = await linkOf(rtnl, "renamed");
  assert.deepEqual([link.index, link.mtu, link.address, link.up], [vf.index, 1400, change.address, true]);
  assert.deepEqual(link.altNames, ["one-long-alternative-name", "alt2"]);
  assert.equal((await rtnl.linkByName("one-long-alternative-name"))?.index, vf.index);
  await rtnl.setLink(vf.index, { up: false, removeAltNames: ["alt2"] });
  const after = await linkOf(rtnl, "renamed");
  assert.deepEqual([after.up, after.altNames], [false, ["one-long-alternative-name"]]);
  assert.deepEqual([await rtnl.linkByName("alt2"), await rtnl.linkByName(vf.name)], [undefined, undefined]);
}

async function moves({ host, pod, vf }: LinksSubject): Promise<void> {
  await host.rtnl.setLink(vf.index, { up: true });
  await host.rtnl.addAddress({ ifindex: vf.index, address: "10.0.0.1", prefixLength: 32, protocol: 110 });
  await host.rtnl.setLink(vf.index, { netns: pod.netns, name: "moved" });
  assert.deepEqual([await host.rtnl.linkByIndex(vf.index), await pod.rtnl.linkByName(vf.name)], [undefined, undefined]);
  const moved = await linkOf(pod.rtnl, "moved");
  assert.deepEqual([moved.up, moved.address, moved.mtu], [false, vf.address, vf.mtu]);
  assert.deepEqual(await pod.rtnl.addresses(moved.index), []);
  await rejects(host.rtnl.addresses(vf.index), "ENODEV");
  await pod.rtnl.setLink(moved.index, { netns: host.netns, name: vf.name });
  assert.equal((await linkOf(host.rtnl, vf.name)).index, vf.index);
}

async function altNames({ host, pod, vf }: LinksSubject): Promise<void> {
  await host.rtnl.setLink(vf.index, { netns: pod.netns, name: "there" });
  const there = await linkOf(pod.rtnl, "there");
  await pod.rtnl.setLink(there.index, { addAltNames: ["also"] });
  await pod.rtnl.setLink(there.index, { netns: host.netns, name: vf.name });
  const back = await linkOf(host.rtnl, vf.name);
  assert.deepEqual(back.altNames, ["also"]);
  await rejects(host.rtnl.setLink(back.index, { addAltNames: ["also"] }), "EEXIST");
  assert.deepEqual((await linkOf(host.rtnl, vf.name)).altNames, ["also"]);
}

async function entries({ host: { rtnl }, vf: { index: ifindex } }: LinksSubject): Promise<void> {
  await rtnl.setLink(ifindex, { up: true });
  await rtnl.addAddress({ ifindex, address: "10.0.0.1", prefixLength: 24, protocol: 110 });
  await rtnl.addAddress({ ifindex, address: "2001:db8::1", prefixLength: 64, noDad: true, protocol: 110 });
  const addresses = await ours(rtnl.addresses(ifindex));
  const reported = addresses.map((one) => [one.address, one.prefixLength, one.permanent, one.tentative, one.family]);
  assert.deepEqual(reported, [
    ["10.0.0.1", 24, true, false, 4],
    ["2001:db8::1", 64, true, false, 6],
  ]);
  const route = { family: 4, destination: "10.1.0.0", prefixLength: 16, gateway: "10.7.7.7", ifindex } as const;
  await rtnl.addRoute({ ...route, protocol: 110, onlink: true, table: 70_000 });
  const [actual] = await ours(rtnl.routes());
  const how = { table: 70_000, protocol: 110, scope: 0, type: 1, metric: 0, onlink: true };
  assert.deepEqual(actual, { ...route, ...how });
  const selector = { ipProtocol: 17, sourcePorts: { first: 1, last: 2 }, destinationPorts: { first: 53, last: 53 } };
  const rule = { family: 6, from: { address: "2001:db8::", prefixLength: 64 }, ...selector, table: 70_000 } as const;
  await rtnl.addRule({ ...rule, protocol: 110 });
  assert.deepEqual(await ours(rtnl.rules()), [{ ...rule, priority: 32_765, protocol: 110 }]);
  for (const mac of ["02:00:00:00:00:09", "02:00:00:00:00:0a"]) {
    await rtnl.addNeighbour({ ifindex, address: "10.0.0.9", mac, protocol: 110 });
  }
  const neighbours = (await ours(rtnl.neighbours(ifindex))).map(({ address, mac }) => [address, mac]);
  assert.deepEqual(neighbours, [["10.0.0.9", "02:00:00:00:00:0a"]]);
  await rtnl.deleteNeighbour({ ifindex, address: "10.0.0.9" });
  await rtnl.deleteRule({ ...rule, priority: 32_765, protocol: 110 });
  await rtnl.deleteRoute({ ...route, protocol: 110, table: 70_000 });
  for (const address of addresses) await rtnl.deleteAddress(address);
  assert.deepEqual(await all(rtnl), []);
}

async function goesDown({ host: { rtnl }, vf: { index: ifindex } }: LinksSubject): Promise<void> {
  await rtnl.setLink(ifindex, { up: true });
  await rtnl.addAddress({ ifindex, address: "10.0.0.1", prefixLength: 32, protocol: 110 });
  await rtnl.addAddress({ ifindex, address: "2001:db8::1", prefixLength: 128, noDad: true, protocol: 110 });
  const route = { destination: "10.1.0.0", prefixLength: 16, scope: 253, ifindex, protocol: 110 } as const;
  await rtnl.addRoute({ ...route, family: 4 });
  await rtnl.addRoute({ family: 6, destination: "2001:db8:1::", prefixLength: 64, ifindex, protocol: 110 });
  await rtnl.setLink(ifindex, { up: false });
  assert.deepEqual(await ours(rtnl.routes()), []);
  assert.deepEqual(
    (await ours(rtnl.addresses(ifindex))).map(({ address }) => address),
    ["10.0.0.1"],
  );
}

async function prepends({ host: { rtnl }, vf: { index: ifindex } }: LinksSubject): Promise<void> {
  await rtnl.setLink(ifindex, { up: true });
  await rtnl.addAddress({ ifindex, address: "10.0.0.1", prefixLength: 32 });
  const route = { family: 4, destination: "10.1.0.0", prefixLength: 16, scope: 253, ifindex } as const;
  await rtnl.addRoute({ ...route, protocol: 4 });
  await rejects(rtnl.addRoute({ ...route, protocol: 110 }), "EEXIST");
  await rtnl.addRoute({ ...route, gateway: "10.7.7.7", scope: 0, onlink: true, protocol: 110, prepend: true });
  const there = (await rtnl.routes()).filter(({ destination }) => destination === "10.1.0.0");
  assert.deepEqual(
    there.map(({ protocol }) => protocol),
    [110, 4],
  );
}

async function watches({ host: { rtnl }, vf: { index: ifindex, name }, known: reported }: LinksSubject): Promise<void> {
  const seen: string[] = [];
  const stop = rtnl.watch(["link", "ipv4-address"], (event: NetlinkEvent) => {
    if ("link" in event) seen.push(`${event.kind} ${event.link.name} ${event.link.up ? "up" : "down"}`);
    if ("address" in event) seen.push(`${event.kind} ${event.address.address}`);
  });
  await rtnl.setLink(ifindex, { up: true });
  await rtnl.addAddress({ ifindex, address: "10.0.0.1", prefixLength: 32 });
  await rtnl.deleteAddress({ ifindex, address: "10.0.0.1", prefixLength: 32 });
  await reported();
  const [up, added, gone] = [`new-link ${name} up`, "new-address 10.0.0.1", "gone-address 10.0.0.1"];
  const order = [up, added, gone].map((what) => seen.indexOf(what));
  assert.ok(order[0] !== -1, seen.join());
  assert.deepEqual(
    order,
    order.toSorted((a, b) => a - b),
  );
  stop();
  const before = seen.length;
  await rtnl.setLink(ifindex, { up: false });
  await reported();
  assert.equal(seen.length, before);
}

function refusals(): Record<string, Contract> {
  const cases: readonly (readonly [says: string, act: (rtnl: Rtnl, index: number) => Promise<void>, code: string])[] = [
    ["a link that is not there", (rtnl) => rtnl.setLink(999, { up: true }), "ENODEV"],
    ["an MTU below the driver's", (rtnl, index) => rtnl.setLink(index, { mtu: 20 }), "EINVAL"],
    ["an address twice", (rtnl, index) => twice(() => rtnl.addAddress(addressOf(index))), "EEXIST"],
    ["an address that is not there", (rtnl, index) => rtnl.deleteAddress(addressOf(index)), "EADDRNOTAVAIL"],
    ["a route over a link that is down", (rtnl, index) => rtnl.addRoute(routeOf(index)), "ENETDOWN"],
    [
      "a gateway that cannot be reached",
      (rtnl, index) => up(rtnl, index, () => rtnl.addRoute({ ...routeOf(index), scope: 0, gateway: "99.1.1.1" })),
      "ENETUNREACH",
    ],
    [
      "a route of bits behind its length",
      (rtnl, index) => up(rtnl, index, () => rtnl.addRoute({ ...routeOf(index), destination: "10.9.0.1" })),
      "EINVAL",
    ],
    ["a route that is not there", (rtnl, index) => up(rtnl, index, () => rtnl.deleteRoute(routeOf(index))), "ESRCH"],
    ["a rule that is not there", (rtnl) => rtnl.deleteRule({ family: 4, table: 77, protocol: 110 }), "ENOENT"],
    [
      "a neighbour that is not there",
      (rtnl, index) => rtnl.deleteNeighbour({ ifindex: index, address: "10.0.0.9" }),
      "ENOENT",
    ],
  ];
  return Object.fromEntries(
    cases.map(([says, act, code]) => [
      `${says} is refused with ${code}`,
      async ({ host: { rtnl }, vf }: LinksSubject) => await rejects(act(rtnl, vf.index), code),
    ]),
  );
}

function addressOf(ifindex: number) {
  return { ifindex, address: "10.0.0.1", prefixLength: 24 };
}

function routeOf(ifindex: number) {
  return { family: 4, destination: "10.9.0.0", prefixLength: 16, scope: 253, ifindex } as const;
}

async function twice(act: () => Promise<void>): Promise<void> {
  await act();
  await act();
}

async function up(rtnl: Rtnl, ifindex: number, act: () => Promise<void>): Promise<void> {
  await rtnl.setLink(ifindex, { up: true });
  await act();
}

function rejects(act: Promise<unknown>, code: string): Promise<void> {
  return assert.rejects(act, (error: KernelError) => error.code === code);
}

/** Those with the mark of this test. */
async function ours<T extends { readonly protocol: number }>(found: Promise<readonly T[]>): Promise<readonly T[]> {
  return (await found).filter(({ protocol }) => protocol === 110);
}

async function all(rtnl: Rtnl): Promise<readonly unknown[]> {
  const found = [ours(rtnl.addresses()), ours(rtnl.routes()), ours(rtnl.rules()), ours(rtnl.neighbours())] as const;
  return (await Promise.all(found)).flat();
}

async function linkOf(rtnl: Rtnl, name: string): Promise<Link> {
  const link = await rtnl.linkByName(name);
  assert.ok(link, `no link ${name}`);
  return link;
}
