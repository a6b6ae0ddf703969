import assert from "node:assert/strict";
import { test } from "node:test";
import { inMemory, type MemoryWorld, refusal } from "../../test/scenes/memory-world.ts";
import { type Address, Errno, type Netns } from "../kernel/index.ts";
import { attachNetdev } from "./attachment.ts";
import { desiredNetdev, type RequestedNetdev } from "./desired.ts";
import type { NetdevError } from "./error.ts";
import { bareNetdev } from "./testing/bare-netdev.ts";

const V6 = "2001:db8::1";
const withV6 = { ...bareNetdev, addresses: [`${V6}/64`] };
const neighbour = { address: "10.0.0.9", mac: "02:00:00:00:00:09" };
const policy = { from: "10.0.0.0/24", routes: [] };
const full = {
  ...bareNetdev,
  addresses: ["10.0.0.1/24"],
  routes: [{ prefix: "10.1.0.0/16", nextHop: "10.0.0.2" }],
  policies: [policy],
  neighbours: [neighbour],
};

const attach = async (world: MemoryWorld, wanted: RequestedNetdev, client: Netns = world.pod.netns) =>
  await attachNetdev({ ...(await world.attachParts(wanted)), client });

/** A namespace of which settings can be read only. */
function readOnly(netns: Netns, readSysctl = netns.readSysctl): Netns {
  const writeSysctl = () => {
    throw refusal(Errno.EACCES);
  };
  return Object.assign(Object.create(netns), { writeSysctl, readSysctl });
}

test("applyDesired() reads again after its changes, three times and no more", async () => {
  for (const [times, outcome] of [
    [3, "is settled"],
    [4, "unsettled"],
  ] as const) {
    await inMemory(async (world) => {
      let left = times;
      // As if another process had removed it again.
      world.inPod = { neighbours: async (index) => (left-- > 0 ? [] : await world.pod.rtnl.neighbours(index)) };
      const attempt = attach(world, { ...bareNetdev, neighbours: [neighbour] });
      const ended = await attempt.then(
        () => "is settled",
        (error: NetdevError) => error.fault.kind,
      );
      assert.deepEqual([times, ended], [times, outcome]);
    });
  }
});

test("applyDesired() takes it well that a change is made already, and reads whether it is", async () => {
  for (const [step, code] of [
    ["addAddress", "EEXIST"],
    ["addRoute", "EEXIST"],
    ["addRule", "EEXIST"],
    ["deleteAddress", "EADDRNOTAVAIL"],
    ["deleteRoute", "ESRCH"],
    ["deleteRule", "ENOENT"],
    ["deleteNeighbour", "ENOENT"],
  ] as const) {
    for (const answer of [code, "EIO"] as const) {
      await inMemory(async (world) => {
        const attachment = await attach(world, step.startsWith("add") ? bareNetdev : full);
        const desired = desiredNetdev(step.startsWith("add") ? full : bareNetdev);
        let isFirst = true;
        world.onStep = (made) => {
          if (!isFirst || !made.startsWith(`pod ${step}`)) return;
          isFirst = false;
          throw refusal(Errno[answer]);
        };
        if (answer === "EIO") return await assert.rejects(attachment.update(desired), /EIO/, step);
        await attachment.update(desired);
        assert.deepEqual([isFirst, await attachment.differences(desired)], [false, []], step);
      });
    }
  }
});

test("applyDesired() leaves a setting of the namespace that is refused, but not IPv6 that is off", () =>
  inMemory(async (world) => {
    const { netns } = world.pod;
    const attachment = await attach(world, withV6, readOnly(netns));
    assert.deepEqual(await attachment.detach(), []);
    netns.writeSysctl("net/ipv4/ping_group_range", "0 2147483647");
    const readSysctl = (name: string) => (name.endsWith("disable_ipv6") ? "1" : netns.readSysctl(name));
    world.steps.splice(0);
    await assert.rejects(attach(world, withV6, readOnly(netns, readSysctl)), /EACCES/);
    assert.deepEqual(
      world.steps.filter((step) => step.startsWith("pod addAddress")),
      [],
    );
  }));

test("applyDesired() says that another link took the name between its read and its rename", () =>
  inMemory(async (world) => {
    world.onStep = (step) => {
      if (step === "pod name=nsm-1") throw refusal(Errno.EEXIST);
    };
    await assert.rejects(attach(world, bareNetdev), (error: NetdevError) => error.fault.kind === "name-taken");
  }));

test("applyDesired() sets a link up again that a reset has set down before its routes", () =>
  inMemory(async (world) => {
    let isFirst = true;
    world.onStep = async (step) => {
      if (!isFirst || !step.startsWith("pod addRoute")) return;
      isFirst = false;
      await world.pod.rtnl.setLink(2, { up: false });
    };
    const attachment = await attach(world, full);
    assert.deepEqual([isFirst, await attachment.differences(desiredNetdev(full))], [false, []]);
  }));

/** Answers so of the address that is ours, one after the other, and then as the last. */
function becoming(world: MemoryWorld, ...states: readonly Partial<Address>[]) {
  const left = [...states];
  world.inPod = {
    addresses: async (index, concerns = () => true) => {
      const all = await world.pod.rtnl.addresses(index);
      if (all.length === 0) return all;
      const state = left.length > 1 ? left.shift() : left[0];
      return all.map((one) => (one.address === V6 ? { ...one, ...state } : one)).filter(concerns);
    },
  };
  return left;
}

const fault = (kind: string) => (error: NetdevError) => error.fault.kind === kind;

test("applyDesired() waits for an IPv6 address as long as it is tentative, two seconds at most", () =>
  inMemory(async (world) => {
    const left = becoming(world, { tentative: true }, { tentative: true }, { tentative: true }, {});
    const attachment = await attach(world, withV6);
    assert.equal(left.length, 1);
    assert.deepEqual(await attachment.detach(), []);
    becoming(world, { tentative: true });
    await assert.rejects(attach(world, withV6), fault("address-tentative"));
  }));

test("applyDesired() says that another host has the address, though it is tentative too", () =>
  inMemory(async (world) => {
    becoming(world, { tentative: true, duplicate: true });
    await assert.rejects(attach(world, withV6), fault("address-duplicate"));
  }));

test("applyDesired() does not wait for an address without a carrier, nor for one that is the pod's own", () =>
  inMemory(async (world) => {
    becoming(world, { tentative: true });
    const linkByIndex = async (index: number) => {
      const link = await world.pod.rtnl.linkByIndex(index);
      return link && { ...link, carrier: false };
    };
    world.inPod = { ...world.inPod, linkByIndex };
    await attach(world, withV6);
    assert.deepEqual(
      world.recorded.of("netdev-has-no-carrier").map(({ address }) => address),
      [V6],
    );
    await inMemory(async (another) => {
      becoming(another, {});
      const theirs = { address: "fe80::1", tentative: true, protocol: 0 };
      const { addresses } = another.inPod;
      another.inPod = {
        addresses: async (index, concerns = () => true) => {
          const all = (await addresses?.(index)) ?? [];
          return all.flatMap((one) => [one, { ...one, ...theirs }]).filter(concerns);
        },
      };
      await attach(another, withV6);
    });
  }));
