// The way back where attachment.test.ts does not lead: on links in memory.
import assert from "node:assert/strict";
import { test } from "node:test";
import { inMemory, type MemoryWorld, refusal, TEMPORARY } from "../../test/scenes/memory-world.ts";
import { picture } from "../../test/scenes/namespaces.ts";
import { Errno } from "../kernel/index.ts";
import { type AttachOptions, attachNetdev, NetdevAttachment } from "./attachment.ts";
import type { AttachmentState } from "./attachment-state.ts";
import type { NetdevError } from "./error.ts";
import type { NotRestored } from "./restore-to-host.ts";
import { bareNetdev } from "./testing/bare-netdev.ts";
import { NO_MAC } from "./vf-settings-through-pf.ts";

const CLIENTS = "02:00:00:00:00:05";
const OWN = "02:00:00:00:11:00";
const SPARE = "00:00:00:00:11:00";
const policies = ["10.0.0.0/24", "10.1.0.0/24"].map((from) => ({ from, routes: [] }));
const requested = { ...bareNetdev, mac: CLIENTS, vlan: 7, policies };

const attach = async (world: MemoryWorld) => attachNetdev(await world.attachParts(requested));
const kindsOf = (left: readonly NotRestored[]) =>
  left.map(({ what, error }) => [what, (error as NetdevError).fault?.kind ?? String(error)]);

/** As after a restart, of a link that has been put back in the host. */
async function adopted(world: MemoryWorld, more: Partial<AttachOptions> = {}): Promise<NetdevAttachment> {
  const state: AttachmentState = world.states.at(-1) ?? assert.fail("nothing was recorded");
  return new NetdevAttachment({ ...(await world.attachParts(requested)), ...more, client: undefined, state });
}

/** The pod's, on the VF's link: each takes so long to remove. */
function uppersOn(world: MemoryWorld, names: readonly string[], tookMs: number): string[] {
  const left = [...names];
  world.inPod = {
    linksNamedOrAbove: async () => {
      const [vf] = await world.pod.rtnl.links();
      if (!vf) return [];
      return left.map((name, at) => ({ ...vf, index: 20 + at, name, kind: "macvlan", peerIndex: vf.index }));
    },
    async deleteLink() {
      await world.clock.sleep(tookMs);
      left.shift();
    },
  };
  return left;
}

test("restoreToHost() waits for a link that was in the host and goes while it is restored, three times and no more", () =>
  inMemory(async (world) => {
    world.mayCome = true;
    await attach(world);
    const inPod = (await world.pod.rtnl.linkByName("nsm-1"))?.index ?? assert.fail("it is in the pod");
    await world.pod.rtnl.setLink(inPod, { netns: world.host.netns });
    world.onStep = async (step) => {
      if (!step.startsWith("host name=")) return;
      await world.unplug();
      world.clock.after(100, async () => {
        const { index } = await world.plug();
        await world.host.rtnl.setLink(index, { up: false });
        await world.host.rtnl.setLink(index, { name: "another" });
      });
      throw refusal(Errno.ENODEV);
    };
    const attachment = await adopted(world);
    world.steps.splice(0);
    assert.deepEqual((await attachment.detach()).map(({ what }) => what).includes("name"), true);
    assert.equal(world.steps.filter((step) => step.startsWith("host name=")).length, 4);
    world.onStep = () => {};
    await world.clock.sleep(200);
    assert.deepEqual(await attachment.detach(), []);
  }));

test("restoreToHost() leaves its name to a link that never left, though another VF is to have that", () =>
  inMemory(async (world) => {
    const parts = await world.attachParts(requested);
    const nameNow = async () => (await world.host.rtnl.linkByIndex(parts.ifindex))?.name;
    const before = await nameNow();
    world.onStep = (step) => {
      if (step.includes("vlan=7")) throw refusal(Errno.EINVAL);
    };
    const othersNames = { isPromised: () => true, isKeptBy: () => false };
    await assert.rejects(attachNetdev({ ...parts, othersNames }), /vlan/i);
    assert.deepEqual([await nameNow(), world.steps.includes("leaving")], [before, false]);
  }));

test("restoreToHost() sets the PF's settings though the link cannot be looked up, and says why", () =>
  inMemory(async (world) => {
    await attach(world);
    const index = async () => {
      throw refusal(Errno.EIO);
    };
    const attachment = await adopted(world, {
      vfLink: { index, mayCome: async () => false, device: async () => "one device" },
    });
    assert.match(String((await attachment.detach())[0]?.error), /EIO/);
    assert.deepEqual(world.pf, { mac: NO_MAC, vlan: 0 });
  }));

test("restoreToHost() removes what the pod has laid on the link, and takes a rule that is gone well", () =>
  inMemory(async (world) => {
    const before = await picture(world.pod);
    const attachment = await attach(world);
    const uppers = uppersOn(world, ["mv0", "mv1"], 100);
    let isFirst = true;
    world.onStep = async (step) => {
      if (!isFirst || !step.startsWith("pod deleteRule")) return;
      isFirst = false;
      const [gone] = await world.pod.rtnl.rules();
      if (gone) await world.pod.rtnl.deleteRule(gone);
      throw refusal(Errno.ENOENT);
    };
    assert.deepEqual([await attachment.detach(), uppers, await picture(world.pod)], [[], [], before]);
  }));

for (const [says, count, removed] of [
  ["all of thousands of rules, also where changes have cut the first tries to list them", 9_000, 9_000],
  ["of rules without number as many as a Close has time for", 20_000, 16_384],
] as const) {
  test(`restoreToHost() removes ${says}`, () =>
    inMemory(async (world) => {
      const attachment = await attach(world);
      const [own] = await world.pod.rtnl.rules();
      const all = Array.from({ length: count }, (_, at) => ({ ...(own ?? assert.fail("no rule")), priority: at }));
      const gone = new Set<unknown>();
      world.inPod = {
        rules: async (concerns = () => true, { most = Infinity } = {}) => {
          all.filter(concerns);
          return all.filter(concerns).slice(0, most);
        },
        deleteRule: async ({ priority }) => void gone.add(priority),
      };
      assert.deepEqual([await attachment.detach(), gone.size], [[], removed]);
    }));
}

for (const way of ["leave", "detach"] as const) {
  test(`Attachment.${way}() leaves link and VLAN where more lies on the link than can be removed in time`, () =>
    inMemory(async (world) => {
      const attachment = await attach(world);
      const uppers = uppersOn(world, ["mv0", "mv1"], 2_000);
      assert.deepEqual(kindsOf(await attachment[way]()), [["link", "not-cleared"]]);
      assert.deepEqual([uppers, world.pf.vlan, (await world.pod.rtnl.links()).length], [["mv1"], 7, 1]);
      uppersOn(world, [], 0);
      assert.deepEqual([await attachment[way](), world.pf.vlan], [[], 0]);
    }));
}

test("Attachment.detach() touches nothing in the client's namespace once its driver has made another link in the host", () =>
  inMemory(async (world) => {
    const attachment = await attach(world);
    const before = await picture(world.pod);
    world.steps.splice(0);
    await attachment.detach({ isRenewed: true });
    assert.deepEqual(
      [world.steps.filter((step) => step.startsWith("pod")), await picture(world.pod), world.pf.vlan],
      [[], before, 0],
    );
  }));

test("restoreToHost() sets a link down that the kernel has put back under its name, before its address is set", () =>
  inMemory(async (world) => {
    const { name } = await world.plug();
    await attach(world);
    const inPod = (await world.pod.rtnl.linkByName("nsm-1"))?.index ?? assert.fail("it is in the pod");
    await world.pod.rtnl.setLink(inPod, { up: false });
    await world.pod.rtnl.setLink(inPod, { netns: world.host.netns, name });
    await world.host.rtnl.setLink(inPod, { up: true });
    const attachment = await adopted(world);
    world.steps.splice(0);
    assert.deepEqual(await attachment.detach(), []);
    assert.deepEqual(world.steps, [
      "pf vlan=0",
      "host up=false",
      `pf mac=${NO_MAC}`,
      `host address=${OWN}`,
      `host addAltNames=${name}-by-udev`,
      "host up=true",
    ]);
  }));

for (const [says, isTaken, steps] of [
  ["gives a link another address before its own, so that the PF hears of it", true, [`pf mac=${NO_MAC}`, SPARE, OWN]],
  ["leaves a link its own address where the PF takes no word back", false, [`pf mac=${NO_MAC}`]],
] as const) {
  test(`restoreToHost() ${says}`, () =>
    inMemory(async (world) => {
      await attach(world);
      const kept = world.states.at(-1) ?? assert.fail("nothing was recorded");
      const inPod = (await world.pod.rtnl.linkByName("nsm-1"))?.index ?? assert.fail("it is in the pod");
      await world.pod.rtnl.setLink(inPod, { address: OWN, netns: world.host.netns, name: TEMPORARY });
      assert.equal(kept.vfBefore.mac, NO_MAC);
      world.onStep = (step) => {
        if (step === `pf mac=${NO_MAC}` && !isTaken) throw refusal(Errno.EINVAL);
      };
      world.steps.splice(0);
      await (await adopted(world)).detach();
      const aboutMac = world.steps
        .filter((step) => /mac|address/.test(step))
        .map((step) => step.replace("host address=", ""));
      assert.deepEqual(aboutMac.slice(0, steps.length), steps);
      assert.equal(aboutMac.includes(SPARE), isTaken);
    }));
}
