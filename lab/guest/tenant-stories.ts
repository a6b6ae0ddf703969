import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { Pod } from "../../sandbox/pod/pod.ts";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { ip, type Row } from "../../test/sandbox/scenes/ip.ts";
import { attachByBpfLink, attachXdp, loadPassAll } from "../../test/scenes/bpf-programs.ts";
import { adapters, netdevOf } from "./hardware.ts";
import { contextFor, untilAsBefore, wholeNode } from "./kernel-stories.ts";
import type { LabNode } from "./node.ts";

const run = promisify(execFile);

const LINK = "nsm-1";
/** The administrator gives the VF none: igb refuses the pod VLANs of its own otherwise. */
const NO_VLAN = 0;
/** Generic XDP, which every driver has. */
const XDP_SKB = 2;

/** Each pod is root over its own link. What one does to it neither the next one on the same VF nor the host may find. */
export const tenantStories = {
  "the next tenant of a VF gets the link that the first one got, whatever the one before has set of it": (
    node: LabNode,
  ) => comesAfter(node, setsAll),
  "nor is anything left that lives on the link: a macvlan in a nested namespace, a program that a process holds": (
    node: LabNode,
  ) => comesAfter(node, livesOn),
};

/** Answers with how to see that nothing is left. */
type Attack = (tenant: SandboxPod, host: { readonly name: string }) => Promise<() => Promise<void>>;

async function comesAfter(node: LabNode, attack: Attack): Promise<void> {
  const before = await wholeNode();
  const first = await tenant(node);
  await leave(node, first.pod, before);
  const name = netdevOf(first.vf) ?? "";
  const host = await seen(undefined, name);

  const { pod, vf } = await tenant(node);
  const isGone = await attack(pod, { name });
  assert.notDeepEqual(await seen(pod, LINK), first.gets, "the tenant has changed nothing");
  await leave(node, pod, before);
  await isGone();
  assert.deepEqual(await seen(undefined, name), host);

  const last = await tenant(node);
  assert.deepEqual([vf, last.vf], [first.vf, first.vf]);
  assert.deepEqual(last.gets, first.gets);
  await leave(node, last.pod, before);
}

async function setsAll(tenant: SandboxPod, host: { readonly name: string }): Promise<() => Promise<void>> {
  const { netns } = tenant.pod;
  const names = new Set(["docker0", "eth0", netdevOf(adapters.left), host.name]);
  for (const change of [
    ...["promisc on", "allmulticast on", "arp off", "multicast off", "mtu 1280", "txqueuelen 7"],
    ...["alias of-the-pod", "group 77", "gso_max_size 9000", "gso_max_segs 9"],
  ]) {
    await ip(netns, `link set ${LINK} ${change}`);
  }
  for (const name of names) await ip(netns, `link property add dev ${LINK} altname ${name}`);
  await inPod(tenant, `tc qdisc add dev ${LINK} clsact`);
  await inPod(tenant, `tc qdisc replace dev ${LINK} root pfifo limit 3`);
  await inPod(tenant, `ethtool -K ${LINK} tx off rx off gro off`);
  await inPod(tenant, `ethtool -G ${LINK} rx 128 tx 128`);
  await inPod(tenant, `ethtool -C ${LINK} rx-usecs 100`);
  const program = loadPassAll("xdp");
  await attachXdp(netns, await indexOf(tenant), { program, flags: XDP_SKB });
  program.close();
  return async () => {
    await ip(undefined, "link add docker0 type bridge"); // the name is the host's
    await ip(undefined, "link del docker0");
  };
}

async function livesOn(tenant: SandboxPod): Promise<() => Promise<void>> {
  const { netns } = tenant.pod;
  const nested = new Pod("nested");
  for (const upper of ["v7 type vlan id 7", "m0 type macvlan mode bridge", "m1 type macvlan mode bridge"]) {
    await ip(netns, `link add link ${LINK} name ${upper}`);
  }
  for (const upper of ["v7", "m0"]) await ip(netns, `link set ${upper} up`);
  await ip(netns, `link set m1 netns ${pathOf(nested)}`);
  await ip(nested.netns, "link set m1 up");
  const program = loadPassAll("xdp");
  const held = attachByBpfLink(netns, await indexOf(tenant), { kind: "xdp", program, flags: XDP_SKB });
  program.close();
  return async () => {
    assert.deepEqual(await nested.links(), []);
    nested.close();
    held.close();
  };
}

/** A client on a VF of the left adapter, which kubelet gives the same one again; each wants the same. */
async function tenant(node: LabNode) {
  const pod = await node.pod("left", contextFor("0a:55:44:33:31:01", NO_VLAN));
  const connection = await pod.client.request();
  const vf = connection.mechanism?.parameters["pciAddress"] ?? "";
  return { pod, vf, gets: await seen(pod, LINK) };
}

async function leave(node: LabNode, pod: SandboxPod, before: unknown): Promise<void> {
  await node.stopwatch.time("close_of_tenant", () => pod.client.close());
  await node.stopwatch.time("close_until_clean", () => node.cleaned());
  await node.endPods(pod);
  await untilAsBefore(before);
}

/** What iproute2 and ethtool say of a link, but for its index and for the address that igbvf calls permanent. */
async function seen(tenant: SandboxPod | undefined, name: string): Promise<unknown> {
  const [row = {}] = JSON.parse(await ip(tenant?.pod.netns, `-json -details link show dev ${name}`)) as Row[];
  const { ifindex: _, permaddr: _address, ...rest } = row;
  const tuning = [];
  for (const option of ["-k", "-g", "-c"]) tuning.push((await inPod(tenant, `ethtool ${option} ${name}`)).split("\n"));
  return { ...rest, tuning };
}

async function indexOf(tenant: SandboxPod): Promise<number> {
  return (await tenant.pod.link(LINK))?.index ?? 0;
}

/** In the host's namespace where there is no pod. */
async function inPod(tenant: SandboxPod | undefined, command: string): Promise<string> {
  const words = command.split(" ");
  const [file = "", ...args] = tenant ? ["nsenter", `--net=${pathOf(tenant.pod)}`, "--", ...words] : words;
  return (await run(file, args)).stdout;
}

function pathOf({ netns }: Pod): string {
  return `/proc/${process.pid}/fd/${netns.fd.number}`;
}
