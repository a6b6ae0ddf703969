import assert from "node:assert/strict";
import { isAnsweredBefore, pingUntilAnswered } from "../../sandbox/network/ping.ts";
import type { DesiredContext } from "../../sandbox/nsm/endpoint-context.ts";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { type IpDump, IpMonitor, ipDump, withoutIndexes } from "../../test/sandbox/scenes/ip.ts";
import { differences } from "./differences.ts";
import { adapters, vfsOf } from "./hardware.ts";
import type { LabNode } from "./node.ts";
import { eventually } from "./waiting.ts";

const VLAN = 100;
const OTHER_VLAN = 200;

/** A VF as a network device in a pod. */
export const kernelStories = {
  "a client gets a VF with name, MAC, VLAN, MTU and addresses, and Close puts all of them back": configuredAndClosed,
  "clients of one VLAN reach each other, over one adapter and over two, and none of another": reachesItsVlan,
  "a refresh that wants nothing else writes nothing": refreshes,
  "a VF goes from client to client, each with its own address": goesOn,
};

async function configuredAndClosed(node: LabNode): Promise<void> {
  const before = await wholeNode();
  const pod = await node.pod("left", contextFor("0a:55:44:33:22:aa", VLAN, { mtu: 1400 }));
  const connection = await node.stopwatch.time("request_first", () => pod.client.request());
  const { links, addresses } = await ipDump(pod.pod.netns);
  const { ifname, address, mtu, flags } = links.at(-1) ?? {};
  assert.deepEqual([links.length, ifname, address, mtu], [2, "nsm-1", "0a:55:44:33:22:aa", 1400]);
  assert.ok(Array.isArray(flags) && flags.includes("UP") && flags.includes("LOWER_UP"), String(flags));
  const info = addresses.at(-1)?.["addr_info"] as { local: string; prefixlen: number; scope: string }[];
  const own = info.filter(({ scope }) => scope === "global").map(({ local, prefixlen }) => `${local}/${prefixlen}`);
  assert.deepEqual(own, connection.context?.ipContext?.srcIpAddrs);
  const given = connection.mechanism?.parameters["pciAddress"];
  const vf = (await vfsOf(adapters.left)).find(({ address: one }) => one === given);
  assert.deepEqual([vf?.driver, vf?.netdev, vf?.port], ["igbvf", undefined, { mac: "0a:55:44:33:22:aa", vlan: VLAN }]);

  await node.stopwatch.time("close", () => pod.client.close());
  assert.equal((await ipDump(pod.pod.netns)).links.length, 1);
  await untilAsBefore(before); // its driver makes another network device
  await node.endPods(pod);
}

async function reachesItsVlan(node: LabNode): Promise<void> {
  const near = await node.pod("left", contextFor("0a:55:44:33:22:01", VLAN));
  const beside = await node.pod("left", contextFor("0a:55:44:33:22:02", VLAN));
  const across = await node.pod("right", contextFor("0a:55:44:33:22:03", VLAN));
  const foreign = await node.pod("left", contextFor("0a:55:44:33:22:04", OTHER_VLAN));
  const fellow = await node.pod("right", contextFor("0a:55:44:33:22:06", OTHER_VLAN));
  const pods = [near, beside, across, foreign, fellow];
  for (const { client } of pods) await client.request();
  for (const other of [beside, across]) assert.notEqual(await answer(near, other), undefined, other.name);
  for (const [from, to, neighbour] of [
    [near, foreign, beside],
    [foreign, across, fellow],
  ] as const) {
    const isAnswered = await isAnsweredBefore(addressOf(neighbour), { netns: from.pod.netns, to: addressOf(to) });
    assert.equal(isAnswered, false, to.name);
  }
  await node.endPods(...pods);
}

async function refreshes(node: LabNode): Promise<void> {
  const pod = await node.pod("left", contextFor("0a:55:44:33:22:05", VLAN));
  await pod.client.request();
  const monitors = [new IpMonitor(), new IpMonitor(pod.pod.netns)];
  try {
    const news = () => Promise.all(monitors.map((monitor) => monitor.news()));
    await news();
    const before = [await wholeNode(), await ipDump(pod.pod.netns)];
    const first = pod.client.connection;
    const second = await node.stopwatch.time("refresh_unchanged", () => pod.client.request());
    assert.deepEqual(await news(), [[], []]);
    assert.deepEqual([await wholeNode(), await ipDump(pod.pod.netns)], before);
    assert.deepEqual(second.context, first?.context);
  } finally {
    for (const monitor of monitors) await monitor.close();
  }
  await node.endPods(pod);
}

/** igbvf takes no other address while the adapter names one: what the last client had must not be in the way. */
async function goesOn(node: LabNode): Promise<void> {
  const peer = await node.pod("right", contextFor("0a:55:44:33:23:00", VLAN));
  await peer.client.request();
  const used = new Set<string>();
  for (let round = 1; round <= 2; round++) {
    const mac = `0a:55:44:33:23:0${round}`;
    const pod = await node.pod("left", contextFor(mac, VLAN));
    const connection = await pod.client.request();
    used.add(connection.mechanism?.parameters["pciAddress"] ?? "");
    assert.equal((await pod.pod.link("nsm-1"))?.mac, mac);
    assert.notEqual(await answer(pod, peer), undefined, mac);
    await node.endPods(pod);
  }
  assert.equal(used.size, 1);
  await node.endPods(peer);
}

/** What an endpoint wants: routes to all clients, so that they can reach each other. */
export function contextFor(srcMac: string, vlanTag: number, more: DesiredContext = {}): DesiredContext {
  return { ethernet: { srcMac, vlanTag }, srcRoutes: [{ prefix: "172.16.1.0/24" }], ...more };
}

/**
 * All that is in the host's namespace, and every VF of both adapters. igbvf calls the address permanent that the
 * physical function gave last: that is no trace of a client. Nor is it whether a physical function
 * keeps no address of a virtual one, or the one that this has anyway: igb of 6.1 cannot go back to none.
 */
export async function wholeNode(): Promise<unknown> {
  const dump = withoutIndexes(await ipDump()) as IpDump;
  const own = new Set<unknown>(["00:00:00:00:00:00", ...dump.links.map(({ address }) => address)]);
  const settled = (mac: string) => (own.has(mac) ? "its own" : mac);
  const plain = JSON.stringify(dump, (key, value) => {
    if (key === "permaddr") return undefined;
    if (key !== "vfinfo_list") return value;
    return value.map((vf: { readonly address: string }) => ({ ...vf, address: settled(vf.address) }));
  });
  const vfs = [...(await vfsOf(adapters.left)), ...(await vfsOf(adapters.right))];
  return [JSON.parse(plain), vfs.map(({ port, ...vf }) => ({ ...vf, port: { ...port, mac: settled(port.mac) } }))];
}

/** Until all is as it was; where that does not come true the error says what differs. */
export async function untilAsBefore(before: unknown): Promise<void> {
  await eventually(
    async () => differences(before, await wholeNode()),
    (differing) => differing.length === 0,
  );
}

/** The time to the other pod and back in ms; undefined when no answer comes. */
export function answer(from: SandboxPod, to: SandboxPod): Promise<number | undefined> {
  return pingUntilAnswered({ netns: from.pod.netns, to: addressOf(to), timeoutMs: 2000, tries: 5 });
}

/** The IPv4 address that a pod was given. */
export function addressOf({ client, name }: SandboxPod): string {
  const [address] = client.connection?.context?.ipContext?.srcIpAddrs ?? [];
  if (address === undefined) throw new Error(`${name} has no address`);
  return address.split("/")[0] ?? "";
}
