// What a client may leave on a link, each by iproute2 or by the kernel's own interface: seen by name, and undone.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import {
  type LinkSettings,
  linkDifferences,
  type NamedLink,
  readLinkSettings,
  restoreLinkSettings,
  type SettingDifference,
} from "../../src/netdev/index.ts";
import { type Need, needs } from "../needs.ts";
import { ip } from "../sandbox/scenes/ip.ts";
import { attachByBpfLink, attachXdp, loadPassAll } from "../scenes/bpf-programs.ts";
import { setByEthtool, WITHOUT_SCATTER_GATHER } from "../scenes/ethtool.ts";
import { linkNamed, openPlace, type Place } from "../scenes/namespaces.ts";
import { until } from "../scenes/until.ts";

interface Host extends Place {
  readonly link: NamedLink;
  /** Its settings before the story. */
  readonly before: LinkSettings;
  read(): Promise<LinkSettings>;
  restore(): ReturnType<typeof restoreLinkSettings>;
}

/** A namespace with a link "vf0", which the lines for `ip` make. */
async function inHost(
  t: TestContext,
  { wants, made }: { readonly wants: readonly Need[]; readonly made: readonly string[] },
  story: (host: Host) => Promise<void>,
): Promise<void> {
  if (!needs(t, "netns", ...wants)) return;
  const place = openPlace();
  try {
    for (const command of made) await ip(place.netns, command);
    const { index, name } = await linkNamed(place, "vf0");
    const link = { index, name };
    const before = await readLinkSettings(place, link);
    const read = () => readLinkSettings(place, link);
    await story({ ...place, link, before, read, restore: () => restoreLinkSettings(place, link, before) });
  } finally {
    place.rtnl.close();
    place.netns.close();
  }
}

const QUEUES = "numtxqueues 4 numrxqueues 4";
const PAIR = {
  wants: ["veth"],
  made: [`link add vf0 ${QUEUES} type veth peer name port0 ${QUEUES}`, "link set port0 up", "link set vf0 up"],
} as const;

const namesOf = (list: readonly SettingDifference[]) => list.map(({ setting }) => setting).sort();

const byIp = [
  { command: "link set vf0 promisc on", settings: ["flag promisc"] },
  { command: "link set vf0 allmulticast on", settings: ["flag allmulti"] },
  { command: "link set vf0 arp off", settings: ["flag noarp"] },
  { command: "link set vf0 multicast off", settings: ["flag multicast"] },
  { command: "link set vf0 dynamic on", settings: ["flag dynamic"] },
  { command: "link set vf0 group 77", settings: ["group"] },
  { command: "link set vf0 txqueuelen 7", settings: ["txqueuelen"] },
  { command: "link set vf0 alias of-the-pod", settings: ["alias"] },
  { command: "link set vf0 mode dormant", settings: ["mode"] },
  { command: "link set vf0 broadcast 02:00:00:00:00:ff", settings: ["broadcast address"] },
  { command: "link set vf0 gso_max_segs 9", settings: ["gso_max_segs"] },
  { command: "link set vf0 gso_max_size 20000", settings: ["gso_ipv4_max_size", "gso_max_size"] },
  { command: "link set vf0 gro_max_size 20000", settings: ["gro_ipv4_max_size", "gro_max_size"] },
  { command: "link property add dev vf0 altname docker0", settings: ["altname docker0"] },
];

for (const { command, settings } of byIp) {
  test(`restoreLinkSettings() undoes \`ip ${command}\``, (t) =>
    inHost(t, PAIR, async ({ netns, before, read, restore }) => {
      await ip(netns, command);
      assert.deepEqual(namesOf(linkDifferences(before, await read())), settings);
      const { restored, remaining } = await restore();
      assert.deepEqual([namesOf(restored), remaining], [settings, []]);
      assert.deepEqual(await read(), before);
    }));
}

test("restoreLinkSettings() gives back all at once what the operator had set, from a journal", (t) => {
  const tuned = ["arp off", "alias rack-4", "txqueuelen 99"].map((what) => `link set vf0 ${what}`);
  const made = [...PAIR.made, ...tuned, "link property add dev vf0 altname uplink"];
  return inHost(t, { ...PAIR, made }, async ({ netns, link, before, read }) => {
    for (const what of ["arp on", "alias x", "txqueuelen 1", "promisc on"]) await ip(netns, `link set vf0 ${what}`);
    await ip(netns, "link property del dev vf0 altname uplink");
    const { remaining } = await restoreLinkSettings({ netns }, link, JSON.parse(JSON.stringify(before)));
    assert.deepEqual(remaining, []);
    assert.deepEqual(await read(), before);
  });
});

test("restoreLinkSettings() writes nothing where nothing differs", (t) =>
  inHost(t, PAIR, async ({ netns, rtnl, restore }) => {
    // The kernel says so some time after it was set up.
    const states = async () => (await ip(netns, "-o link show type veth")).match(/state \w+/g);
    await until("both ends are up", async () => String(await states()) === "state UP,state UP");
    const heard: unknown[] = [];
    const stop = rtnl.watch(["link"], (event) => heard.push(event));
    assert.deepEqual(await restore(), { restored: [], remaining: [] });
    stop();
    assert.deepEqual(heard, []);
  }));

test("restoreLinkSettings() says which link has the altname", (t) =>
  inHost(t, { ...PAIR, made: [...PAIR.made, "link property add dev vf0 altname uplink"] }, async (host) => {
    await ip(host.netns, "link property del dev vf0 altname uplink");
    await ip(host.netns, "link property add dev port0 altname uplink");
    const [left] = (await host.restore()).remaining;
    assert.deepEqual([left?.setting, left?.error?.code], ["altname uplink", "EEXIST"]);
  }));

test("readLinkSettings() sees who else hears all packets, and restoreLinkSettings() leaves them", (t) =>
  inHost(t, { ...PAIR, wants: ["veth", "bridge"] }, async ({ netns, before, read, restore }) => {
    await ip(netns, "link add br0 type bridge");
    await ip(netns, "link set vf0 master br0");
    const settings = ["allmulti users", "kind", "master", "promisc users"];
    const bridged = await read();
    assert.deepEqual(namesOf(linkDifferences(before, bridged)), settings);
    assert.deepEqual(namesOf((await restore()).remaining), settings);
    await ip(netns, "link set vf0 nomaster");
    assert.equal(namesOf(linkDifferences(bridged, await read())).includes("promisc users"), false);
    assert.deepEqual(await read(), before);
  }));

const byEthtool = [
  {
    says: "features",
    change: WITHOUT_SCATTER_GATHER, // what needs it becomes inactive too
    settings: ["features active", "features requested"],
    of: PAIR,
  },
  { says: "channels", change: { command: 18, type: 6, hex: "02000000" }, settings: ["channels rx"], of: PAIR },
  {
    says: "coalescing",
    change: { command: 20, type: 3, hex: "07000000" },
    settings: ["coalesce rx-frames"],
    of: { wants: ["tap"], made: ["tuntap add vf0 mode tap"] },
  },
] as const;

for (const { says, change, settings, of } of byEthtool) {
  test(`restoreLinkSettings() gives back ${says} that ethtool has set`, (t) =>
    inHost(t, of, async ({ netns, link, before, read, restore }) => {
      await setByEthtool(netns, link, change);
      const { restored, remaining } = await restore();
      assert.deepEqual([namesOf(restored), remaining], [settings, []]);
      assert.deepEqual(await read(), before);
    }));
}

// XDP_FLAGS_*_MODE, include/uapi/linux/if_link.h.
const xdpModes = [
  { mode: "skb", flags: 2 },
  { mode: "drv", flags: 4 },
];
for (const { mode, flags } of xdpModes) {
  test(`restoreLinkSettings() takes an XDP program of mode ${mode} off, but for one that a bpf_link holds`, (t) =>
    inHost(t, { ...PAIR, wants: ["veth", "bpf"] }, async ({ netns, link, before, read, restore }) => {
      const program = loadPassAll("xdp");
      await attachXdp(netns, link.index, { program, flags });
      const { restored, remaining } = await restore();
      assert.deepEqual([namesOf(restored), remaining], [[`xdp ${mode}`], []]);
      assert.deepEqual(await read(), before);
      const held = attachByBpfLink(netns, link.index, { kind: "xdp", program, flags });
      const [left] = (await restore()).remaining;
      assert.deepEqual([left?.setting, left?.before, left?.error?.code], [`xdp ${mode}`, undefined, "EBUSY"]);
      held.close();
      program.close();
      assert.deepEqual(await read(), before);
    }));
}

test("restoreLinkSettings() answers that a tcx program remains", (t) =>
  inHost(t, { ...PAIR, wants: ["veth", "bpf", "tcx"] }, async ({ netns, link, before, read, restore }) => {
    const program = loadPassAll("tcx");
    const held = attachByBpfLink(netns, link.index, { kind: "tcx", program });
    const { remaining } = await restore();
    assert.deepEqual(namesOf(remaining), ["tcx ingress"]);
    assert.match(remaining[0]?.after ?? "", /^program \d+$/);
    held.close();
    program.close();
    assert.deepEqual(await read(), before);
  }));

test("readLinkSettings() refuses a link that is called otherwise by now, and one that has gone", (t) =>
  inHost(t, PAIR, async ({ netns, link, read }) => {
    await ip(netns, "link set vf0 down");
    await ip(netns, "link set vf0 name vf9");
    await ip(netns, "link set port0 name vf0");
    await assert.rejects(read, { code: "EAGAIN" });
    await ip(netns, "link del vf9");
    await assert.rejects(readLinkSettings({ netns }, link), { code: "ENODEV" });
  }));
