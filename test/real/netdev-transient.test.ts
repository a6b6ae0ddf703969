// Drivers that say "not now", and a link that goes and comes back while it is on its way: on real links, whose answers are
// altered where a socket is opened.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno, KernelError, type LinkOwnerOf, type Netns, Rtnl } from "../../src/kernel/index.ts";
import {
  type AttachOptions,
  attachNetdev,
  desiredNetdev,
  type NetdevError,
  type PfPort,
  type RequestedNetdev,
  type VfLink,
  type VfSettings,
} from "../../src/netdev/index.ts";
import { attachPartsOf, inWorld, linkNamed, linksOf, picture, type World } from "../scenes/namespaces.ts";

const requested: RequestedNetdev = {
  name: "nsm-1",
  mac: "02:00:00:00:00:05",
  vlan: 7,
  addresses: ["10.0.0.1/24", "2001:db8::1/64"],
  peerAddresses: ["10.0.0.2/24"],
  routes: [{ prefix: "10.1.0.0/16" }],
  policies: [],
  neighbours: [],
};

/** A PF and a link whose driver refuses so many times: each setting, each address, each "up". */
function busyCard(world: World, { times = 2, pf = "EAGAIN" as keyof typeof Errno } = {}) {
  const queries = new Map<string, number>();
  const refused = (what: string, code: keyof typeof Errno) => {
    const count = (queries.get(what) ?? 0) + 1;
    queries.set(what, count % (times + 1));
    if (count <= times) throw new KernelError(what, Errno[code]);
  };
  const writes: string[] = [];
  let actual: VfSettings = { mac: "00:00:00:00:00:00", vlan: 0, trust: false };
  const port: PfPort = {
    pf: "0000:01:00.0 (enp1s0f0, driver ice)",
    async read() {
      refused("read the VF", pf);
      return actual;
    },
    async write(_vf, change) {
      refused(`set ${Object.keys(change)}`, pf);
      writes.push(...Object.entries(change).map(([setting, value]) => `${setting}=${value}`));
      actual = { ...actual, ...change };
    },
  };
  const openRtnl = (netns: Netns) => {
    const rtnl = Rtnl.open({ netns });
    const setLink: Rtnl["setLink"] = async (index, change) => {
      if (change.up === true) refused("up", "EBUSY");
      if (change.address !== undefined) refused("address", "EAGAIN");
      return await Rtnl.prototype.setLink.call(rtnl, index, change);
    };
    return Object.assign(rtnl, { setLink });
  };
  const links = linksOf(world.host, { ...world.of, openRtnl });
  const vf = { port, index: 3, settings: {} };
  const options = { ...attachPartsOf(world), links, vf, desired: desiredNetdev(requested) };
  return { options, writes, actual: () => actual };
}

test("attachNetdev() waits for a driver that is busy at each step, there and back, and never trusts the VF for it", (t) =>
  inWorld(t, async (world) => {
    await world.host.rtnl.setLink(world.vf.index, { up: true });
    const before = [await picture(world.host), await picture(world.pod)];
    const { options, writes, actual } = busyCard(world);
    const attachment = await attachNetdev(options);
    const link = await linkNamed(world.pod, "nsm-1");
    assert.deepEqual([link.up, link.address, actual().vlan], [true, requested.mac, 7]);
    await attachment.update(desiredNetdev({ ...requested, mac: "02:00:00:00:00:06", vlan: 8 }));
    assert.equal((await linkNamed(world.pod, "nsm-1")).address, "02:00:00:00:00:06");
    assert.deepEqual(await attachment.detach(), []);
    assert.deepEqual(
      writes.filter((write) => write.startsWith("trust")),
      [],
    );
    assert.deepEqual([await picture(world.host), await picture(world.pod)], before);
  }));

test("attachNetdev() ends with its caller, says at which step it was, and takes everything back", (t) =>
  inWorld(t, async (world) => {
    const before = [await picture(world.host), await picture(world.pod)];
    const { options } = busyCard(world);
    const caller = new AbortController();
    const port: PfPort = {
      ...options.vf.port,
      read: async () => ({ mac: "00:00:00:00:00:00", vlan: 0 }),
      async write(_vf, change) {
        if (change.vlan !== 7) return;
        caller.abort(new Error("the caller's time is up"));
        throw new KernelError("set vlan", Errno.EAGAIN);
      },
    };
    const attempt = attachNetdev({
      ...options,
      vf: { ...options.vf, port },
      desired: desiredNetdev({ ...requested, mac: "" }),
      signal: caller.signal,
    });
    await assert.rejects(attempt, (error: NetdevError) => {
      assert.match(error.message, /Cannot set vlan of VF 3 \(link vf0\): its driver answered EAGAIN 1 times/);
      return error.fault.kind === "busy";
    });
    assert.deepEqual([await picture(world.host), await picture(world.pod)], before);
  }));

/** The PF resets the VF at each setting: its link goes, and another one comes a moment later, with another index. */
function vanishingCard(world: World) {
  const [indexes, state] = [[world.vf.index], { index: world.vf.index as number | undefined, made: 0 }];
  let actual: VfSettings = { mac: "00:00:00:00:00:00", vlan: 0, trust: false };
  const vfLink: VfLink = { index: async () => state.index, mayCome: async () => true, device: async () => "a device" };
  const remake = async () => {
    const wire = `port${++state.made}`;
    await world.wire.rtnl.createLink({
      kind: "veth",
      name: wire,
      peer: { name: `new${state.made}`, netns: world.host.netns },
    });
    const { index, peerIndex = 0 } = await linkNamed(world.wire, wire);
    wires.add(index);
    // Not by its name: the kernel says whose it is, so that it may be on its way already.
    indexes.push(peerIndex);
    state.index = peerIndex;
    await world.wire.rtnl.setLink(index, { up: true });
  };
  const port: PfPort = {
    pf: "0000:01:00.0 (enp1s0f0, driver ice)",
    read: async () => actual,
    async write(_vf, change) {
      actual = { ...actual, ...change };
      state.index = undefined;
      await world.wire.rtnl.deleteLink((await linkNamed(world.wire, `port${state.made}`)).index);
      setImmediate(() => void remake());
    },
  };
  const wires = new Set([world.vf.peerIndex]);
  const linkOwnerOf: LinkOwnerOf = async (_place, { peerIndex }) => {
    const pciFunction = wires.has(peerIndex) ? world.of.address : undefined;
    return { pciFunction, text: String(pciFunction) };
  };
  const links = linksOf(world.host, { linkOwnerOf });
  const vf = { port, index: 3, settings: {} };
  const desired = desiredNetdev({ ...requested, mac: "" });
  const options: AttachOptions = { ...attachPartsOf(world), links, vf, vfLink, desired };
  return { options, indexes, actual: () => actual };
}

test("attachNetdev() continues with the link that comes in place of the one that went, there, at a change and back", (t) =>
  inWorld(t, async (world) => {
    await world.host.rtnl.setLink(world.vf.index, { mtu: 1450 });
    const { options, indexes, actual } = vanishingCard(world);
    const attachment = await attachNetdev(options);
    assert.deepEqual([indexes.length, actual().vlan], [2, 7]);
    const link = await linkNamed(world.pod, "nsm-1");
    assert.equal(link.up, true);
    assert.deepEqual(await attachment.differences(options.desired), []);
    const desired = desiredNetdev({ ...requested, mac: "", vlan: 8 });
    await attachment.update(desired);
    assert.deepEqual([indexes.length, actual().vlan], [3, 8]);
    assert.deepEqual(await attachment.differences(desired), []);
    assert.deepEqual(await attachment.detach(), []);
    const restore = await linkNamed(world.host, "vf0");
    assert.deepEqual([restore.index, restore.mtu, restore.up, actual().vlan], [indexes[3], 1450, false, 0]);
    assert.equal((await world.pod.rtnl.links()).length, 1);
  }));

test("attachNetdev() does not wait for a link whose driver makes none any more", (t) =>
  inWorld(t, async (world) => {
    const { options } = vanishingCard(world);
    const vfLink: VfLink = { index: async () => undefined, mayCome: async () => false, device: async () => "a device" };
    await world.host.rtnl.deleteLink(world.vf.index);
    await assert.rejects(attachNetdev({ ...options, vfLink }), (error: NetdevError) => error.fault.kind === "gone");
  }));
