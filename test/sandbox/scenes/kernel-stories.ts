// The life of a KERNEL connection, on whatever card.
import assert from "node:assert/strict";
import { isAnsweredBefore, pingUntilAnswered } from "../../../sandbox/network/ping.ts";
import type { DesiredContext } from "../../../sandbox/nsm/endpoint-context.ts";
import { SANDBOX_VLAN, type SandboxPod } from "../../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../../src/async/index.ts";
import { Rtnl } from "../../../src/kernel/index.ts";
import { until } from "../../scenes/until.ts";
import { IpMonitor, ip, ipDump } from "./ip.ts";
import { openFiles, type Scene, type Story } from "./story.ts";

const NEIGHBOUR_MAC = "0a:55:44:33:22:bb";

/** Everything that an endpoint can want. */
const everything = {
  ethernet: { srcMac: "0a:55:44:33:22:aa", vlanTag: SANDBOX_VLAN },
  srcRoutes: [
    { prefix: "172.16.1.0/24" },
    { prefix: "10.20.0.0/16" },
    { prefix: "2001:db8:7::/48", nextHop: "2001:db8::" },
  ],
  policies: [
    { from: "172.16.1.0/24", proto: "6", dstPort: "6666", routes: [{ prefix: "10.30.0.0/16", nextHop: "172.16.1.0" }] },
    { from: "2001:db8::/120", srcPort: "1000-2000", routes: [{ prefix: "2001:db8:9::/48" }] },
  ],
  neighbours: [{ ip: "172.16.1.77", hardwareAddress: NEIGHBOUR_MAC }],
  mtu: 1400,
} satisfies DesiredContext;
const { ethernet, ...rest } = everything;

/** Without what the card's PF cannot be asked for. */
function everythingOn({ sandbox }: Scene): DesiredContext & typeof rest {
  return sandbox.machine.card === "no-vf-info" ? rest : everything;
}

/** Those that need no VLAN. */
export const plainStories: Readonly<Record<string, Story>> = {
  "stands in the client's namespace as the endpoint asked": configuredAsRequested,
  "is not touched by a refresh that wants nothing else": unchangedRefresh,
  "changes in what differs, and stays up": changesWhatDiffers,
  "leaves everything as it was when it is closed": leavesAsItWas,
};

export const kernelStories: Readonly<Record<string, Story>> = {
  ...plainStories,
  "reaches the endpoint and the other clients of its VLAN, none of another": reachesItsVlan,
};

async function configuredAsRequested(scene: Scene): Promise<void> {
  scene.sandbox.endpoint.want(everythingOn(scene));
  const { client, pod } = await scene.pod();
  await client.request();
  const { links, addresses, routes, rules, neighbours } = await ipDump(pod.netns);
  const { ifname, flags, mtu, address } = links.at(-1) ?? {};
  assert.deepEqual([links.length, ifname, mtu], [2, "nsm-1", 1400]);
  assert.ok(Array.isArray(flags) && flags.includes("UP") && flags.includes("LOWER_UP"));
  const info = addresses.at(-1)?.["addr_info"] as { local: string; prefixlen: number; scope: string }[];
  const own = info.filter(({ scope }) => scope === "global").map(({ local, prefixlen }) => `${local}/${prefixlen}`);
  assert.deepEqual(own, client.connection?.context?.ipContext?.srcIpAddrs);
  const ours = routes.filter((route) => route.includes("proto 110"));
  assert.deepEqual(ours.map(short), [
    "10.20.0.0/16 via 172.16.1.0 onlink",
    "10.30.0.0/16 via 172.16.1.0 table 2 onlink",
    "172.16.1.0 scope link",
    "172.16.1.0/24 scope link",
    "2001:db8:7::/48 via 2001:db8:: onlink",
    "2001:db8:9::/48 table 1",
    "2001:db8::",
  ]);
  assert.deepEqual(
    rules.filter((rule) => rule.includes("proto 110")).map((rule) => rule.replace(/\d+:\t/, "")),
    [
      "from 172.16.1.0/24 ipproto tcp dport 6666 lookup 2 proto 110",
      "IPv6 from 2001:db8::/120 sport 1000-2000 lookup 1 proto 110",
    ],
  );
  assert.deepEqual(
    neighbours.map((line) => line.split(" ").slice(0, 6).join(" ")),
    [`172.16.1.77 dev nsm-1 lladdr ${NEIGHBOUR_MAC} PERMANENT`],
  );
  if (scene.sandbox.machine.card !== "no-vf-info") {
    const { settings, adminMac } = await scene.vfOf(client);
    assert.deepEqual([address, adminMac, settings.vlan], [ethernet.srcMac, ethernet.srcMac, SANDBOX_VLAN]);
  }
  await client.close();
}

async function reachesItsVlan(scene: Scene): Promise<void> {
  const vlans = new Map<string, number>();
  const [near, far, elsewhere, beyond] = [await scene.pod(), await scene.pod(), await scene.pod(), await scene.pod()];
  const others = [elsewhere, beyond];
  scene.sandbox.endpoint.want(({ id, path }) => {
    const name = path?.pathSegments[0]?.name ?? "";
    if (!vlans.has(id)) vlans.set(id, others.some((other) => other.name === name) ? 7 : SANDBOX_VLAN);
    const srcMac = `0a:55:44:33:22:0${vlans.size}`;
    return { ethernet: { srcMac, vlanTag: vlans.get(id) ?? 0 }, srcRoutes: [{ prefix: "172.16.1.0/24" }] };
  });
  for (const { client } of [near, far, ...others]) await client.request();
  const plain = (address: string | undefined) => address?.split("/")[0] ?? "";
  const answers = (from: SandboxPod, to: string | undefined) =>
    pingUntilAnswered({ netns: from.pod.netns, to: plain(to), clock, tries: 3 });
  const [endpoint4, endpoint6] = near.client.connection?.context?.ipContext?.dstIpAddrs ?? [];
  assert.ok((await answers(near, endpoint4)) !== undefined);
  assert.ok((await answers(near, endpoint6)) !== undefined);
  const addressOf = ({ client }: SandboxPod) => client.connection?.context?.ipContext?.srcIpAddrs[0] ?? "";
  assert.ok((await answers(near, addressOf(far))) !== undefined);
  for (const [from, to, neighbour] of [
    [near, addressOf(elsewhere), far],
    [elsewhere, addressOf(near), beyond],
    [elsewhere, endpoint4, beyond],
  ] as const) {
    const question = { netns: from.pod.netns, to: plain(to), clock };
    assert.equal(await isAnsweredBefore(plain(addressOf(neighbour)), question), false, `${from.name} reached ${to}`);
  }
  for (const { client } of [near, far, ...others]) await client.close();
}

async function unchangedRefresh(scene: Scene): Promise<void> {
  const { endpoint, changes, machine } = scene.sandbox;
  endpoint.want(everythingOn(scene));
  const { client, pod } = await quietPod(scene);
  const first = await client.request();
  await untilLocal(pod);
  const monitors = [machine.netns, pod.netns].map((netns) => new IpMonitor(netns));
  try {
    const news = () => Promise.all(monitors.map((monitor) => monitor.news()));
    await news();
    changes.forget();
    const reported = () => scene.log.events.filter(({ level }) => level !== "debug" && level !== "trace").length;
    const before = {
      reported: reported(),
      sockets: openSockets(),
      requested: endpoint.requests.length,
      dump: await ipDump(pod.netns),
      writes: Rtnl.totals.writes,
    };
    const second = await client.request();
    assert.equal(Rtnl.totals.writes, before.writes);
    assert.deepEqual(await news(), [[], []]);
    assert.deepEqual(changes.seen, []);
    assert.deepEqual(openSockets(), before.sockets);
    assert.deepEqual(await ipDump(pod.netns), before.dump);
    assert.equal(endpoint.requests.length, before.requested + 1);
    assert.equal(reported(), before.reported);
    assert.deepEqual(second.context, first.context);
  } finally {
    for (const monitor of monitors) await monitor.close();
  }
  await client.close();
}

async function changesWhatDiffers(scene: Scene): Promise<void> {
  const { endpoint, changes } = scene.sandbox;
  endpoint.want(everythingOn(scene));
  const { client, pod } = await quietPod(scene);
  await client.request();
  await untilLocal(pod);
  const monitor = new IpMonitor(pod.netns);
  try {
    await monitor.news();
    changes.forget();
    const policies = rest.policies.slice(0, 1);
    const srcRoutes = [...rest.srcRoutes.filter(({ prefix }) => prefix !== "10.20.0.0/16"), { prefix: "10.21.0.0/16" }];
    endpoint.want({ ...everythingOn(scene), srcRoutes, policies });
    await client.request();
    assert.deepEqual((await monitor.news()).map(short), [
      "10.21.0.0/16 via 172.16.1.0 onlink",
      "Deleted 32765:\tfrom 2001:db8::/120 sport 1000-2000 lookup 1",
      "Deleted 2001:db8:9::/48 table 1",
      "Deleted 10.20.0.0/16 via 172.16.1.0 onlink",
    ]);
    assert.deepEqual(changes.seen, []);
    endpoint.want({ ...everythingOn(scene), srcRoutes, policies, mtu: 1380 });
    await client.request();
    const news = await monitor.news();
    assert.ok(
      news.length > 0 && news.every((line) => line.includes("mtu 1380") && line.includes("state UP")),
      String(news),
    );
  } finally {
    await monitor.close();
  }
  await client.close();
}

/** Each once: a question that another thread asks has a descriptor of its own meanwhile. */
function openSockets(): readonly string[] {
  return [...new Set(openFiles("socket"))];
}

/** A pod in which the kernel does not take a second to try out the link-local address, and report it. */
async function quietPod(scene: Scene): Promise<SandboxPod> {
  const admitted = await scene.pod();
  admitted.pod.netns.writeSysctl("net/ipv6/conf/default/accept_dad", "0");
  return admitted;
}

/** The kernel makes an IPv6 address of a link that has just come up local some time after it was given, and says so then. */
async function untilLocal({ netns }: SandboxPod["pod"]): Promise<void> {
  await until("each address of the pod is local", async () => {
    const addresses = [...(await ip(netns, "-6 -o address show scope global")).matchAll(/inet6 ([\da-f:]+)/g)];
    const local = await ip(netns, "-6 route show table local");
    return addresses.length > 0 && addresses.every(([, address]) => local.includes(`local ${address} `));
  });
}

/** A line of iproute2 without what is the same on all lines of ours. */
function short(line: string): string {
  return line.replaceAll(/ (dev nsm-1|proto 110|metric 1024|pref medium)\b/g, "").trim();
}

async function leavesAsItWas(scene: Scene): Promise<void> {
  const { machine, endpoint } = scene.sandbox;
  endpoint.want(everythingOn(scene));
  const admitted = await scene.pod();
  // Whichever VF it gets: each has something of the operator's on it.
  const { links } = await ipDump(machine.netns);
  const vfs = links.map(({ ifname }) => String(ifname)).filter((name) => /v\d+$/.test(name));
  for (const name of vfs) {
    await ip(machine.netns, `link property add dev ${name} altname my-${name}`);
    await ip(machine.netns, `link set dev ${name} mtu 1450`);
  }
  const before = await scene.dump([admitted]);
  await admitted.client.request();
  assert.notDeepEqual(await scene.dump([admitted]), before);
  await admitted.client.close();
  assert.deepEqual(await scene.dump([admitted]), before);
  for (const name of vfs) {
    await ip(machine.netns, `link property del dev ${name} altname my-${name}`);
    await ip(machine.netns, `link set dev ${name} mtu 1500`);
  }
}
