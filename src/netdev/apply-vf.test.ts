import assert from "node:assert/strict";
import { test } from "node:test";
import { inMemory, type MemoryWorld, refusal } from "../../test/scenes/memory-world.ts";
import { Errno } from "../kernel/index.ts";
import { attachNetdev, NetdevAttachment } from "./attachment.ts";
import { desiredNetdev } from "./desired.ts";
import type { NetdevError } from "./error.ts";
import { bareNetdev } from "./testing/bare-netdev.ts";
import { NO_MAC, type VfSettings } from "./vf-settings-through-pf.ts";

const [CLIENTS, NEXT, OPERATORS] = ["02:00:00:00:00:05", "02:00:00:00:00:06", "02:00:00:00:00:07"];
const requested = { ...bareNetdev, mac: CLIENTS };
const aboutMac = ({ steps }: MemoryWorld) => steps.filter((step) => /mac|address/.test(step));

async function attach(world: MemoryWorld, settings: VfSettings = {}) {
  const parts = await world.attachParts(requested);
  return await attachNetdev({ ...parts, vf: { ...parts.vf, settings } });
}

/** The PF names what the VF chooses, as igb does, until it has named one itself. */
function namesChoice(world: MemoryWorld): void {
  let isNamed = false;
  world.onStep = (step) => {
    const [, where, mac] = /^(pf mac|pod address|host address)=(\S+)/.exec(step) ?? [];
    if (where === "pf mac") isNamed = mac !== NO_MAC;
    else if (mac && isNamed) throw refusal(Errno.EADDRNOTAVAIL);
    else if (mac) world.pf = { ...world.pf, mac };
  };
}

test("VfBeneath gives the link the address that its PF names already, and states it to a PF that may name a choice", () =>
  inMemory(async (world) => {
    world.pf = { mac: CLIENTS, vlan: 0 };
    const attachment = await attach(world);
    assert.deepEqual(aboutMac(world), [`pf mac=${NO_MAC}`, `pf mac=${CLIENTS}`, `host address=${CLIENTS}`]);
    await attachment.update(desiredNetdev(requested));
    assert.equal(aboutMac(world).length, 3);
  }));

test("VfBeneath pins each address that the VF chooses, and gives the VF its choice back", () =>
  inMemory(async (world) => {
    namesChoice(world);
    const own = (await world.plug()).address;
    world.pf = { mac: own, vlan: 0 };
    const attachment = await attach(world);
    await attachment.update(desiredNetdev({ ...requested, mac: NEXT }));
    assert.deepEqual(aboutMac(world), [
      `host address=${CLIENTS}`,
      `pf mac=${NO_MAC}`,
      `pf mac=${CLIENTS}`,
      `pod address=${NEXT}`,
      `pf mac=${NO_MAC}`,
      `pod address=${NEXT}`,
      `pf mac=${NO_MAC}`,
      `pf mac=${NEXT}`,
    ]);
    assert.equal(world.states.at(-1)?.vfBefore.mac, NO_MAC);
    assert.deepEqual([await attachment.detach(), world.pf.mac], [[], own]);
  }));

for (const [says, pf, before, kept] of [
  ["of a VF that is trusted", { mac: OPERATORS, trust: true }, {}, OPERATORS],
  ["that was known before", { mac: CLIENTS }, { mac: OPERATORS }, OPERATORS],
  ["that the VF had chosen", { mac: OPERATORS }, {}, NO_MAC],
] as const) {
  test(`VfBeneath remembers the address ${says}, though the PF names the one that the VF takes now`, () =>
    inMemory(async (world) => {
      const parts = await world.attachParts(requested);
      await attachNetdev({ ...parts, desired: desiredNetdev({ ...requested, mac: "" }) });
      world.pf = { vlan: 0, ...pf };
      world.onStep = (step) => {
        const [, mac] = /^pod address=(.*)/.exec(step) ?? [];
        if (mac) world.pf = { ...world.pf, mac };
      };
      const state = { ...(world.states.at(-1) ?? assert.fail("nothing was recorded")), vfBefore: before };
      await new NetdevAttachment({ ...parts, state }).update(desiredNetdev({ ...requested, mac: NEXT }));
      assert.equal(world.states.at(-1)?.vfBefore.mac, kept);
    }));
}

test("VfBeneath takes the PF's word back for a link that refuses an address, and not for one that is busy", () =>
  inMemory(async (world) => {
    world.pf = { mac: OPERATORS, vlan: 0 };
    let tries = 0;
    world.onStep = (step) => {
      if (step === `host address=${CLIENTS}` && tries++ === 0) throw refusal(Errno.EBUSY);
    };
    await attach(world);
    assert.deepEqual(aboutMac(world), [`host address=${CLIENTS}`, `pf mac=${CLIENTS}`, `host address=${CLIENTS}`]);
  }));

test("VfBeneath fails before it records anything where the PF reports nothing and something is requested", () =>
  inMemory(async (world) => {
    world.pf = {};
    await assert.rejects(attach(world), (error: NetdevError) => error.fault.kind === "vf-silent");
    assert.deepEqual(aboutMac(world), []);
    assert.deepEqual(world.states.at(-1)?.vfBefore, {});
  }));

test("VfBeneath bears a setting that the PF's driver does not have, says so, and does not find it different", () =>
  inMemory(async (world) => {
    world.pf = { mac: NO_MAC, vlan: 0, trust: false };
    world.onStep = (step) => {
      if (step.startsWith("pf trust")) throw refusal(Errno.EOPNOTSUPP);
    };
    const attachment = await attach(world, { trust: true });
    const [warned] = world.recorded.of("vf-setting-unsupported");
    assert.deepEqual([warned?.["setting"], await attachment.differences(desiredNetdev(requested))], ["trust", []]);
  }));
