import assert from "node:assert/strict";
import { test } from "node:test";
import type { LinkOwnerOf } from "../../src/kernel/index.ts";
import {
  type AttachmentState,
  type AttachOptions,
  attachNetdev,
  desiredNetdev,
  NetdevAttachment,
  type NetdevError,
  type NotRestored,
  type PfPort,
  type RequestedNetdev,
  type VfSettings,
} from "../../src/netdev/index.ts";
import { ip } from "../sandbox/scenes/ip.ts";
import { attachPartsOf, inWorld, linkNamed, linksOf, picture, type World } from "../scenes/namespaces.ts";
import { until } from "../scenes/until.ts";

const requested: RequestedNetdev = {
  name: "nsm-1",
  mtu: 1400,
  mac: "02:00:00:00:00:05",
  vlan: 7,
  addresses: ["10.0.0.1/24", "2001:db8::1/64"],
  peerAddresses: ["10.0.0.2/24"],
  routes: [{ prefix: "10.1.0.0/16" }],
  policies: [{ from: "10.0.0.0/24", protocol: "tcp", destinationPort: "80", routes: [] }],
  neighbours: [{ address: "10.0.0.9", mac: "02:00:00:00:00:09" }],
};

function attach(world: World, more: Partial<AttachOptions> = {}) {
  return attachNetdev({ ...attachPartsOf(world), desired: desiredNetdev(requested), ...more });
}

const bothPictures = async ({ host, pod }: World) => [await picture(host), await picture(pod)];
const whatOf = (left: readonly NotRestored[]) => left.map((failure) => failure.what);

test("Attachment.detach() returns a link to the host under its stand-in where another has taken its own", (t) =>
  inWorld(t, async (world) => {
    const { host, vf } = world;
    const standIn = `vf${attachPartsOf(world).address.replaceAll(/[:.]/g, "-")}`;
    const attachment = await attach(world);
    await host.rtnl.createLink({ kind: "bridge", name: "vf0" });
    assert.deepEqual(await attachment.detach(), []);
    const restore = await linkNamed(host, standIn);
    assert.deepEqual([restore.mtu, restore.address, restore.up, restore.altNames], [1500, vf.address, false, []]);
    const again = await attach({ ...world, vf: restore });
    assert.deepEqual(await again.detach(), []);
    assert.equal((await linkNamed(host, standIn)).address, vf.address);
  }));

test("Attachment.detach() gives links that have each other's names their own, though they come back at once", (t) =>
  inWorld(t, async (world) => {
    const { host } = world;
    const second = await secondVf(world);
    const before = await picture(host);
    const both = [{ links: second.links }, second];
    const states: AttachmentState[] = [];
    for (const [at, options] of both.entries()) {
      const record = async (state: AttachmentState) => {
        states[at] = state;
      };
      assert.deepEqual(await (await attach(world, { ...options, record })).detach(), []);
    }
    for (const command of ["set vf0 name free", "set vf1 name vf0", "set free name vf1"]) {
      await ip(host.netns, `link ${command}`);
    }
    const [first, other] = both.map((options, at) => {
      const state = states[at] as AttachmentState;
      return new NetdevAttachment({ ...attachPartsOf(world), ...options, client: undefined, state });
    });
    const detaching = first?.detach();
    const { temporaryName } = states[0] as AttachmentState;
    await until(
      "it has given up the name of the other",
      async () => (await host.rtnl.linkByName(temporaryName)) !== undefined,
    );
    const left = [await other?.detach(), await detaching];
    assert.deepEqual([left, await picture(host)], [[[], []], before]);
  }));

test("Attachment.detach() leaves nothing of the client on the link: no macvlan, and no alternative name", (t) =>
  inWorld(t, async (world) => {
    const before = await bothPictures(world);
    const attachment = await attach(world);
    const podIp = (command: string) => ip(world.pod.netns, command);
    await podIp("link add link nsm-1 name mv0 type macvlan mode bridge");
    await podIp("link add link nsm-1 name mv1 type macvlan mode bridge");
    await podIp("link set mv1 up");
    await podIp("link property add dev nsm-1 altname docker0 altname br-of-host");
    await world.host.rtnl.createLink({ kind: "bridge", name: "br-of-host" });
    assert.deepEqual(await attachment.detach(), []);
    await ip(world.host.netns, "link del br-of-host");
    assert.deepEqual(await bothPictures(world), before);
  }));

test("NetdevAttachment continues from the state that another process kept", (t) =>
  inWorld(t, async (world) => {
    const before = await bothPictures(world);
    const kept: string[] = [];
    const record = async (state: AttachmentState) => void kept.push(JSON.stringify(state));
    const parts = attachPartsOf(world);
    await attach(world, { ...parts, record });
    const state = JSON.parse(kept.at(-1) ?? "") as AttachmentState;
    const adopted = new NetdevAttachment({ ...parts, state });
    assert.deepEqual(await adopted.differences(desiredNetdev(requested)), []);
    await adopted.update(desiredNetdev({ ...requested, addresses: ["10.0.0.3/24"] }));
    assert.equal(
      (await world.pod.rtnl.addresses()).some((address) => address.address === "10.0.0.1"),
      false,
    );
    assert.deepEqual(await adopted.detach(), []);
    assert.deepEqual(await bothPictures(world), before);
  }));

test("Attachment.detach() restores a link that the kernel put back when the namespace died", (t) =>
  inWorld(t, async (world) => {
    const { host, pod } = world;
    const before = await bothPictures(world);
    const parts = attachPartsOf(world);
    let state: AttachmentState | undefined;
    const record = async (kept: AttachmentState) => {
      state = kept;
    };
    await attach(world, { ...parts, record });
    const link = await linkNamed(pod, "nsm-1");
    await pod.rtnl.setLink(link.index, { netns: host.netns });
    const dead = new NetdevAttachment({ ...parts, client: undefined, state: state ?? assert.fail("nothing was kept") });
    assert.equal((await dead.differences(desiredNetdev(requested)))[0]?.kind, "not-there");
    assert.deepEqual(await dead.detach(), []);
    assert.deepEqual(await picture(host), before[0]);
  }));

test("Attachment.detach() removes the rules of a link that is gone, and says that it is gone", (t) =>
  inWorld(t, async (world) => {
    const { pod } = world;
    const before = await picture(pod);
    const attachment = await attach(world);
    await pod.rtnl.deleteLink((await linkNamed(pod, "nsm-1")).index);
    assert.deepEqual(await attachment.differences(desiredNetdev(requested)), [{ kind: "not-there", link: "nsm-1" }]);
    await assert.rejects(
      attachment.update(desiredNetdev(requested)),
      (error: NetdevError) => error.fault.kind === "gone",
    );
    assert.deepEqual(whatOf(await attachment.detach()), ["link"]);
    assert.deepEqual(await picture(pod), before);
  }));

test("attachNetdev() leaves nothing behind, whichever step it fails at", (t) =>
  inWorld(t, async (world) => {
    await world.host.rtnl.setLink(world.vf.index, { up: true, addAltNames: ["vf0-alternative"] });
    const before = await bothPictures(world);
    const outcomes: string[] = [];
    for (let failing = 1; failing <= 5; failing++) {
      let steps = 0;
      const record = async () => {
        steps++;
        if (steps === failing) throw new Error(`no journal for step ${failing}`);
      };
      const vf = { port: pretendPort(world), index: 0, settings: {} };
      const attempt = attach(world, { record, vf });
      outcomes.push(
        await attempt.then(
          () => "stands",
          (error: Error) => error.message,
        ),
      );
      const left = await attempt.then(
        (attachment) => attachment.detach(),
        () => [],
      );
      assert.deepEqual([await bothPictures(world), left], [before, []]);
    }
    assert.deepEqual(outcomes, [1, 2, 3, 4].map((step) => `no journal for step ${step}`).concat("stands"));
  }));

test("attachNetdev() stops when its caller has gone", (t) =>
  inWorld(t, async (world) => {
    const before = await bothPictures(world);
    const caller = new AbortController();
    const record = async (state: AttachmentState) => {
      if (state.clientIndex !== undefined) caller.abort(new Error("caller has gone"));
    };
    await assert.rejects(attach(world, { record, signal: caller.signal }), /caller has gone/);
    assert.deepEqual(await bothPictures(world), before);
  }));

/** A PF whose VF is the link of the world; it notes when it is asked to change a VF that is up. */
function pretendPort(
  world: World,
  refuses?: keyof VfSettings,
): PfPort & { readonly writes: string[]; actual: VfSettings } {
  const port = {
    pf: "0000:01:00.0 (enp1s0f0, driver igb)",
    writes: [] as string[],
    actual: { mac: "00:00:00:00:00:00", vlan: 0, spoofCheck: true, trust: false } as VfSettings,
    async read() {
      return port.actual;
    },
    async write(_vf: number, change: VfSettings) {
      const link = await world.host.rtnl.linkByIndex(world.vf.index);
      port.writes.push(`${Object.keys(change)} ${link ? (link.up ? "up" : "down") : "out"}`);
      if (refuses !== undefined && change[refuses]) throw new Error(`no ${refuses} today`);
      port.actual = { ...port.actual, ...change };
    },
  };
  return port;
}

test("attachNetdev() sets the VF while its link is down in the host, and detach() puts back what stood", (t) =>
  inWorld(t, async (world) => {
    await world.host.rtnl.setLink(world.vf.index, { up: true });
    const before = await bothPictures(world);
    const port = pretendPort(world);
    const { actual } = port;
    const settings = { spoofCheck: false, trust: true };
    const attachment = await attach(world, { vf: { port, index: 0, settings } });
    assert.deepEqual(port.writes, ["mac down", "vlan down", "spoofCheck down", "trust down"]);
    assert.deepEqual(await attachment.differences(desiredNetdev(requested)), []);
    assert.deepEqual(await attachment.differences(desiredNetdev({ ...requested, vlan: 8 })), [
      { kind: "vf", setting: "vlan" },
    ]);
    await attachment.update(desiredNetdev(requested));
    assert.equal(port.writes.length, 4);
    assert.deepEqual(await attachment.detach(), []);
    assert.deepEqual(port.actual, actual);
    assert.deepEqual(await bothPictures(world), before);
  }));

test("attachNetdev() fails when the PF takes no VLAN, before the link has left the host", (t) =>
  inWorld(t, async (world) => {
    const before = await bothPictures(world);
    const port = pretendPort(world, "vlan");
    const attempt = attach(world, { vf: { port, index: 3, settings: { trust: true } } });
    await assert.rejects(attempt, /Cannot set vlan of VF 3: no vlan today/);
    assert.deepEqual([port.actual.mac, port.actual.trust], ["00:00:00:00:00:00", false]);
    assert.deepEqual(await bothPictures(world), before);
  }));

test("attachNetdev() gives two links of one pod tables of their own, though they come at once", (t) =>
  inWorld(t, async (world) => {
    const { pod } = world;
    const second = {
      ...(await secondVf(world)),
      desired: desiredNetdev({ ...requested, name: "nsm-2", mac: undefined }),
    };
    const { links } = second;
    const before = await bothPictures(world);
    const attachments = await Promise.all([attach(world, { links }), attach(world, second)]);
    const tables = (await pod.rtnl.rules()).filter((rule) => rule.protocol === 110).map((rule) => rule.table);
    assert.deepEqual(tables.sort(), [1, 2]);
    assert.deepEqual(await attachments[0].differences(desiredNetdev(requested)), []);
    assert.deepEqual(await attachments[0].detach(), []);
    assert.deepEqual(await attachments[1].differences(second.desired), []);
    assert.deepEqual(await attachments[1].detach(), []);
    assert.deepEqual(await bothPictures(world), before);
  }));

/** Another VF of the host, "vf1", with what tells both apart. */
async function secondVf({ host, wire, of }: World) {
  await host.rtnl.createLink({ kind: "veth", name: "vf1", peer: { name: "port1", netns: wire.netns } });
  const port = await linkNamed(wire, "port1");
  const address = "0000:01:10.2";
  const linkOwnerOf: LinkOwnerOf = async (place, link) => {
    if (link.peerIndex !== port.index) return await of.linkOwnerOf(place, link);
    return { pciFunction: address, text: address };
  };
  return { address, links: linksOf(host, { linkOwnerOf }), ifindex: (await linkNamed(host, "vf1")).index };
}
