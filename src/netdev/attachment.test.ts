// The way in, a change and the way back, on links in memory. What kernels and drivers answer is held in test/real/netdev-*.test.ts.
import assert from "node:assert/strict";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { inMemory, type MemoryWorld, refusal, TEMPORARY } from "../../test/scenes/memory-world.ts";
import { picture } from "../../test/scenes/namespaces.ts";
import { Errno } from "../kernel/index.ts";
import { type AttachOptions, attachNetdev, NetdevAttachment } from "./attachment.ts";
import { desiredNetdev, type RequestedNetdev } from "./desired.ts";
import type { NetdevError, NetdevFault } from "./error.ts";
import { NOTHING_OWNED } from "./owned.ts";
import { bareNetdev } from "./testing/bare-netdev.ts";
import { NO_MAC } from "./vf-settings-through-pf.ts";

const requested: RequestedNetdev = {
  ...bareNetdev,
  mtu: 1400,
  mac: "02:00:00:00:00:05",
  vlan: 7,
  addresses: ["10.0.0.1/24", "2001:db8::1/64"],
  routes: [{ prefix: "10.1.0.0/16", nextHop: "10.0.0.2" }],
  policies: [{ from: "10.0.0.0/24", routes: [] }],
  neighbours: [{ address: "10.0.0.9", mac: "02:00:00:00:00:09" }],
};
const WAY_IN = [
  "record",
  "host up=false",
  "record",
  "host address=02:00:00:00:00:05",
  "pf mac=02:00:00:00:00:05",
  "pf vlan=7",
  "leaving",
  "host removeAltNames=enp1s16f0-by-udev",
  `host move name=${TEMPORARY}`,
  "record",
  "record",
  "pod up=false",
  "pod name=nsm-1",
  "pod mtu=1400",
  "pod up=true",
  "pod addAddress 10.0.0.1/24",
  "pod addAddress 2001:db8::1/64",
  "pod addRoute 10.1.0.0/16 table 254",
  "pod addRoute 0.0.0.0/0 table 1",
  "pod addRule IPv4 table 1",
  "pod addNeighbour address=10.0.0.9 ifindex=2 mac=02:00:00:00:00:09 protocol=110",
];
const REFUSABLE = WAY_IN.filter((step) => step !== "leaving");
const WAY_BACK = [
  "pod deleteRule IPv4 table 1",
  "pod up=false",
  `pod move name=${TEMPORARY}`,
  "pf vlan=0",
  "host name=enp1s16f0",
  "host mtu=1500",
  `pf mac=${NO_MAC}`,
  "host address=02:00:00:00:11:00",
  "host addAltNames=enp1s16f0-by-udev",
  "host up=true",
];

const attach = async (world: MemoryWorld, wanted = requested, more: Partial<AttachOptions> = {}) =>
  attachNetdev({ ...(await world.attachParts(wanted)), ...more });
const everything = async (world: MemoryWorld) => [await picture(world.host), await picture(world.pod), world.pf];
const kindOf = (kind: NetdevFault["kind"]) => (error: NetdevError) => error.fault?.kind === kind;
const kindsLeft = (world: MemoryWorld) =>
  world.recorded.of("netdev-not-restored").map(({ error }) => (error as NetdevError).fault?.kind);

/** Answers once so at the step of that number, from 1. */
function failAt(world: MemoryWorld, number: number, fail: () => unknown): void {
  let at = 0;
  world.onStep = () => (++at === number ? fail() : undefined);
}

/** The same at the next step of that text. */
function failNext(world: MemoryWorld, failing: string, fail: () => unknown): void {
  world.onStep = (step) => {
    if (step !== failing) return;
    world.onStep = () => {};
    return fail();
  };
}

const refuse = (code: keyof typeof Errno) => () => {
  throw refusal(Errno[code]);
};

test("attachNetdev() keeps what it needs for the way back before each step, and each step waits for those before it", () =>
  inMemory(async (world) => {
    await attach(world);
    assert.deepEqual(world.steps, WAY_IN);
    const kept = world.states.map(({ kept, vfBefore, clientIndex, owned }) => {
      return [Object.keys(kept?.settings ?? {}), vfBefore, clientIndex, owned];
    });
    const altname = ["altname enp1s16f0-by-udev"];
    const before = { mac: NO_MAC, vlan: 0 };
    const owned = { addresses: ["10.0.0.1/24", "2001:db8::1/64"], tables: [1], mtu: true };
    assert.deepEqual(kept, [
      [[], {}, undefined, NOTHING_OWNED],
      [altname, before, undefined, NOTHING_OWNED],
      [altname, before, 2, NOTHING_OWNED],
      [altname, before, 2, owned],
    ]);
  }));

test("Attachment.detach() removes rules first and sets the address last, once", () =>
  inMemory(async (world) => {
    await world.plug();
    const before = await everything(world);
    const attachment = await attach(world);
    world.steps.splice(0);
    assert.deepEqual(await attachment.detach(), []);
    assert.deepEqual([world.steps, await everything(world)], [WAY_BACK, before]);
    assert.deepEqual(await attachment.detach(), []);
    assert.equal(world.steps.length, WAY_BACK.length);
  }));

test("attachNetdev() leaves nothing behind whichever step fails, and says why", async () => {
  for (const [at, step] of REFUSABLE.entries()) {
    // What the link does not take itself, its PF may give it.
    if (step === `host address=${requested.mac}`) continue;
    await inMemory(async (world) => {
      await world.plug();
      const before = await everything(world);
      failAt(world, at + 1, refuse("EIO"));
      await assert.rejects(attach(world), /EIO/, step);
      assert.deepEqual(await everything(world), before, step);
    });
  }
});

test("Attachment.detach() continues past each step that fails, names it, and makes up for it when it is called again", async () => {
  for (const [at, step] of WAY_BACK.entries()) {
    await inMemory(async (world) => {
      await world.plug();
      const before = await everything(world);
      const attachment = await attach(world);
      failAt(world, at + 1, refuse("EIO"));
      const left = await attachment.detach();
      assert.equal(left.length === 0, isDeepStrictEqual(await everything(world), before), step);
      if (left.length > 0) assert.match(left.map(({ error }) => String(error)).join("; "), /EIO/, step);
      assert.deepEqual([await attachment.detach(), await everything(world)], [[], before], step);
    });
  }
});

test("attachNetdev() and detach() continue with the link that the driver makes in place of one that goes at any step", async () => {
  for (const [at, step] of [...REFUSABLE, ...WAY_BACK].entries()) {
    if (step === "record" || step.includes("Rule")) continue;
    await inMemory(async (world) => {
      await world.plug();
      const [before] = await everything(world);
      world.mayCome = true;
      failAt(world, at + 1, async () => {
        await world.unplug();
        world.clock.after(1_000, () => void world.plug());
        // The PF takes what resets its VF.
        if (!step.startsWith("pf")) throw refusal(Errno.ENODEV);
      });
      const attachment = await attach(world);
      assert.deepEqual(await attachment.differences(desiredNetdev(requested)), [], step);
      assert.deepEqual([await attachment.detach(), (await everything(world))[0]], [[], before], step);
    });
  }
});

test("attachNetdev() writes nothing into the host's own namespace, nor where the name is taken", () =>
  inMemory(async (world) => {
    const own = attach(world, requested, { client: world.host.netns });
    await assert.rejects(own, kindOf("host-namespace"));
    const other = await world.plug("0000:02:10.0");
    await world.host.rtnl.setLink(other.index, { up: false });
    await world.host.rtnl.setLink(other.index, { netns: world.pod.netns, name: "nsm-1" });
    await assert.rejects(attach(world), kindOf("name-taken"));
    assert.deepEqual([world.steps, world.states], [[], []]);
  }));

test("attachNetdev() goes no further for a caller that has gone", async () => {
  for (const [step, next] of [
    ["pf vlan=7", "leaving"],
    ["pod mtu=1400", "pod addAddress 10.0.0.1/24"],
  ] as const) {
    await inMemory(async (world) => {
      await world.plug();
      const before = await everything(world);
      const caller = new AbortController();
      failNext(world, step, () => caller.abort(new Error("it has gone")));
      await assert.rejects(attach(world, requested, { signal: caller.signal }), /it has gone/);
      assert.deepEqual([world.steps.includes(next), await everything(world)], [false, before], step);
    });
  }
});

test("attachNetdev() keeps what it could not undo, and says what failed first", () =>
  inMemory(async (world) => {
    await world.plug();
    const before = await everything(world);
    const left: NetdevAttachment[] = [];
    world.onStep = (step) => {
      if (step.startsWith("pod addNeighbour") || step === "pf vlan=0") throw refusal(Errno.EIO);
    };
    const attempt = attach(world, requested, { keepLeft: (attachment) => left.push(attachment) });
    await assert.rejects(attempt, (error: NetdevError) => {
      const { fault } = error;
      assert.ok(fault.kind === "left-behind" && /EIO/.test(fault.reason));
      return isDeepStrictEqual(fault.left, ["vf vlan"]);
    });
    world.onStep = () => {};
    assert.deepEqual([await left[0]?.detach(), left.length, await everything(world)], [[], 1, before]);
  }));

test("Attachment.detach() waits for a link that has gone on its way in and is late, and for no other", () =>
  inMemory(async (world) => {
    await world.plug();
    world.mayCome = true;
    const away = async () => {
      await world.unplug();
      throw refusal(Errno.ENODEV);
    };
    failNext(world, `host move name=${TEMPORARY}`, away);
    const attempt = attach(world);
    world.clock.after(65_000, () => void world.plug());
    await assert.rejects(attempt, kindOf("busy"));
    assert.deepEqual(kindsLeft(world), []);
    // It has come back, so that the next one is not waited for.
    failNext(world, `host move name=${TEMPORARY}`, async () => {
      world.clock.after(1_000, () => void world.plug());
      await away();
    });
    const attachment = await attach(world);
    await world.unplug();
    await attachment.detach();
    assert.deepEqual(kindsLeft(world), ["gone"]);
  }));

test("attachNetdev() keeps the host's settings of the first link, also when another one comes in its place", () =>
  inMemory(async (world) => {
    world.mayCome = true;
    failNext(world, "pod mtu=1400", async () => {
      await world.unplug();
      const { index } = await world.plug();
      await world.host.rtnl.setLink(index, { addAltNames: ["from-client"] });
      throw refusal(Errno.ENODEV);
    });
    const attachment = await attach(world);
    const indexes = world.states.map(({ original, clientIndex }) => [original.index, clientIndex]);
    assert.deepEqual(Object.keys(world.states.at(-1)?.kept?.settings ?? {}), ["altname enp1s16f0-by-udev"]);
    assert.deepEqual(indexes.slice(3, 7), [
      [2, 2],
      [3, undefined],
      [3, undefined],
      [3, 3],
    ]);
    assert.deepEqual(await attachment.detach(), []);
  }));

test("attachNetdev() reads another VF that has come in place of the first one, and detach() leaves one as it is", () =>
  inMemory(async (world) => {
    world.mayCome = true;
    failNext(world, "pod mtu=1400", async () => {
      await world.unplug();
      world.device = "another device";
      await world.host.rtnl.setLink((await world.plug()).index, { mtu: 1280, addAltNames: ["of-the-next"] });
      world.pf = { ...world.pf, mac: NO_MAC, vlan: 100 };
      throw refusal(Errno.ENODEV);
    });
    const attachment = await attach(world);
    const { device, original, kept, vfBefore } = world.states.at(-1) ?? assert.fail();
    assert.deepEqual([device, original.mtu, vfBefore.vlan], ["another device", 1280, 100]);
    assert.ok(Object.keys(kept?.settings ?? {}).includes("altname of-the-next"));
    assert.deepEqual(await attachment.detach(), []);
    assert.deepEqual([world.pf.vlan, (await world.host.rtnl.links())[0]?.mtu], [100, 1280]);

    const again = await attach(world);
    await world.unplug();
    world.device = "a third device";
    await world.plug();
    world.pf = { ...world.pf, vlan: 4 };
    world.steps.splice(0);
    assert.deepEqual([await again.detach(), world.steps, world.pf.vlan], [[], [], 4]);
  }));

test("attachNetdev() takes what was known of the host's side for the VF that it is of, and of this boot", async () => {
  for (const [device, boot, mtu, alias] of [
    ["one device", "this boot", 1280, "of-the-host"],
    ["one device", "another boot", 1280, undefined],
    ["another device", "this boot", 1500, undefined],
    [undefined, "this boot", 1280, "of-the-host"],
  ] as const) {
    await inMemory(async (world) => {
      await (await attach(world)).detach();
      const { original } = world.states.at(-1) ?? assert.fail();
      const kept = {
        boot: boot === "this boot" ? (world.links.settings?.boot ?? assert.fail()) : boot,
        settings: { "altname of-the-host": "on" },
      };
      const before = { original: { ...original, mtu: 1280 }, kept, ...(device !== undefined && { device }) };
      await attach(world, requested, { before });
      const state = world.states.at(-1) ?? assert.fail();
      assert.equal(state.original.mtu, mtu, `${device}, ${boot}`);
      assert.equal(state.kept?.settings["altname of-the-host"] === "on", alias !== undefined, `${device}, ${boot}`);
      assert.equal(state.kept?.boot, world.links.settings?.boot);
      assert.equal(state.device, "one device");
    });
  }
});

test("Attachment.update() writes what differs, under the names that are known then", () =>
  inMemory(async (world) => {
    const attachment = await attach(world);
    await world.pod.netns.writeSysctl("net/ipv4/ping_group_range", "1 0");
    world.steps.splice(0);
    await attachment.update(desiredNetdev(requested));
    assert.deepEqual(world.steps, ["record"]);
    const changed = { ...requested, name: "nsm-2", vlan: 8, mtu: undefined, mac: "02:00:00:00:00:06" };
    await attachment.update(desiredNetdev(changed));
    const { name, vfBefore, owned } = world.states.at(-1) ?? assert.fail("nothing was recorded");
    assert.deepEqual([name, vfBefore, owned.mtu], ["nsm-2", { mac: NO_MAC, vlan: 0 }, false]);
    assert.deepEqual(world.steps.slice(1, 8), [
      "record",
      "record",
      "pod address=02:00:00:00:00:06",
      "pf mac=02:00:00:00:00:06",
      "pf vlan=8",
      "record",
      "pod up=false",
    ]);
    assert.deepEqual(await attachment.differences(desiredNetdev(changed)), []);
    assert.equal(world.pod.netns.readSysctl("net/ipv4/ping_group_range"), "1 0");
  }));

test("Attachment.update() touches nothing, the PF neither, when another link has the name", () =>
  inMemory(async (world) => {
    const attachment = await attach(world);
    const other = await world.plug("0000:02:10.0");
    await world.host.rtnl.setLink(other.index, { netns: world.pod.netns, name: "nsm-2" });
    world.steps.splice(0);
    const update = attachment.update(desiredNetdev({ ...requested, name: "nsm-2", vlan: 8 }));
    await assert.rejects(update, kindOf("name-taken"));
    assert.deepEqual(world.steps, []);
  }));

test("Attachment.update() waits for no link where nothing of ours can have made it go", () =>
  inMemory(async (world) => {
    const attachment = await attach(world);
    await world.unplug();
    world.mayCome = true;
    const before = world.clock.monotonicMs();
    await assert.rejects(attachment.update(desiredNetdev(requested)), kindOf("gone"));
    assert.equal(world.clock.monotonicMs(), before);
  }));

test("Attachment.differences() names what the PF, the link and the marks do not have as desired", () =>
  inMemory(async (world) => {
    const attachment = await attach(world);
    const differing = async (wanted: RequestedNetdev) =>
      (await attachment.differences(desiredNetdev(wanted))).map((one) => ("setting" in one ? one.setting : one.kind));
    assert.deepEqual(await differing(requested), []);
    assert.deepEqual(await differing({ ...requested, vlan: 8, mtu: undefined }), ["mtu", "vlan"]);
    await world.pod.rtnl.setLink(2, { up: false });
    // Its routes, its neighbours and its IPv6 address went with it.
    const lost = ["up", "add-address", "add-route", "add-route", "add-neighbour"];
    assert.deepEqual(await differing(requested), lost);
  }));

test("Attachment.detach() hears news of both places while it waits for a driver", () =>
  inMemory(async (world) => {
    const attachment = await attach(world);
    const watch = () => {
      world.steps.push("pod watch");
      return () => void world.steps.push("pod unwatch");
    };
    world.inPod = { watch };
    failNext(world, "pod up=false", refuse("EBUSY"));
    world.steps.splice(0);
    assert.deepEqual(await attachment.detach(), []);
    assert.deepEqual(
      world.steps.filter((step) => step.includes("watch")),
      ["pod watch", "pod unwatch"],
    );
  }));

test("NetdevAttachment remembers tables by the marks in them, which a link that goes down loses", () =>
  inMemory(async (world) => {
    await attach(world);
    const state = { ...(world.states.at(-1) ?? assert.fail("nothing was recorded")), owned: NOTHING_OWNED };
    const adopted = new NetdevAttachment({ ...(await world.attachParts(requested)), state });
    await adopted.update(desiredNetdev({ ...requested, mtu: 1300 }));
    assert.deepEqual(world.states.at(-1)?.owned.tables, [1]);
  }));
