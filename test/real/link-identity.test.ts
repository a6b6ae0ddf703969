// No link is written to but that of the VF that is meant: each story has links of other devices where the forwarder would look.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { type TestContext, test } from "node:test";
import { createOwnNetns } from "../../sandbox/own-netns.ts";
import { Pod } from "../../sandbox/pod/pod.ts";
import { SANDBOX_RESOURCE, Sandbox, type SandboxOptions } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { type Netns, Rtnl } from "../../src/kernel/index.ts";
import type { Host } from "../../src/node/index.ts";
import { silentLog as log } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";
import { ip, ipDump } from "../sandbox/scenes/ip.ts";
import { eventually } from "../sandbox/scenes/story.ts";
import { openPlace, type Place } from "../scenes/namespaces.ts";

const PF = "0000:01:00.0";
/** The sandbox's two adapters with eight virtual functions each. */
const PRETENDED = 2 * (1 + 8);

function closing(t: TestContext, place: Place): Place {
  t.after(() => {
    place.rtnl.close();
    place.netns.close();
  });
  return place;
}

async function ownPlace(t: TestContext): Promise<Place> {
  const netns = await createOwnNetns();
  return closing(t, { netns, rtnl: Rtnl.open({ netns }) });
}

/** Links of other devices, each with an address: "theirs2" at index 2 and so on, or one at an index, or with a name. */
async function addInnocent(node: Place, peers: Place, name: string, { index = 0, isUp = true } = {}): Promise<number> {
  const at = index > 0 ? ` index ${index}` : "";
  await ip(
    node.netns,
    `link add ${name}${at} type veth peer name p-${name} netns /proc/${process.pid}/fd/${peers.netns.fd.number}`,
  );
  const link = await node.rtnl.linkByName(name);
  assert.ok(link);
  if (isUp) await node.rtnl.setLink(link.index, { up: true, mtu: 1400 });
  await node.rtnl.addAddress({ ifindex: link.index, address: `192.0.2.${link.index}`, prefixLength: 32, noDad: true });
  return link.index;
}

/** Name, flags, MAC, MTU, altnames and addresses of the links of that namespace whose names match. */
async function linksOf(netns: Netns, names: RegExp): Promise<unknown> {
  const { links, addresses } = await ipDump(netns);
  const isMeant = ({ ifname }: Readonly<Record<string, unknown>>) => names.test(String(ifname));
  return [links.filter(isMeant), addresses.filter(isMeant)];
}

async function openSandbox(t: TestContext, options: Partial<SandboxOptions>): Promise<Sandbox> {
  const sandbox = await Sandbox.start({ log, clock, ...options });
  t.after(() => sandbox.stop());
  return sandbox;
}

/** Whatever the forwarder reads of `/sys/bus/pci/devices` first passes through `read`. */
function readingBy(read: (path: string, text: string) => string | Promise<string>): (host: Host) => Host {
  return (host) => {
    const readText = async (path: string) => await read(path, await host.devices.readText(path));
    return { ...host, devices: Object.assign(Object.create(host.devices), { readText }) };
  };
}

const offered = (sandbox: Sandbox, count: number) =>
  sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.filter(({ healthy }) => healthy).length === count);

const NOT_OURS =
  /as the network device of 0000:\S+: the kernel says that it sits on no function of the sandbox \(it is a veth\)/;

test("a Request is refused where other links have the pretended indexes, and each of them stays as it is", async (t) => {
  if (!needs(t, "root", "netns", "veth")) return;
  const [node, peers] = [await ownPlace(t), closing(t, openPlace())];
  for (let at = 0; at < PRETENDED; at++) assert.equal(await addInnocent(node, peers, `theirs${at + 2}`), at + 2);
  const sandbox = await openSandbox(t, { machine: { netns: node.netns } });
  const before = await linksOf(node.netns, /./);
  await sandbox.startForwarder();
  await offered(sandbox, PRETENDED - 2);
  const { client, pod } = await sandbox.startPod("pod-1");
  await assert.rejects(client.request(), NOT_OURS);
  assert.deepEqual(await linksOf(node.netns, /./), before);
  assert.deepEqual(await pod.links(), []);
});

test("a VF in whose place sysfs has another link is withheld with the reason, and its Request gets another one", async (t) => {
  if (!needs(t, "root", "netns", "veth", "bridge")) return;
  const forged = new Map<string, string>();
  const sandbox = await openSandbox(t, {
    machine: { realLinks: true, pfs: 1, vfsPerPf: 2 },
    host: readingBy((path, text) => forged.get(path.replace(/\/net\/.*\/ifindex$/, "")) ?? text),
  });
  const { netns } = sandbox.machine;
  const node = closing(t, { netns: netns.dup(), rtnl: Rtnl.open({ netns }) });
  const theirs = await addInnocent(node, closing(t, openPlace()), "theirs");
  const { node: known } = await sandbox.startForwarder();
  await offered(sandbox, 2);
  const { client, tokenId: token } = await sandbox.startPod("pod-1");
  const before = await linksOf(netns, /^theirs$/);
  const own = known.inventory.snapshot().find(({ tokenId }) => tokenId === token);
  const other = known.inventory.snapshot().find(({ tokenId }) => tokenId !== token);
  assert.ok(own && other);
  forged.set(own.address, String(theirs));

  await client.request();
  assert.equal(client.connection?.mechanism?.parameters["pciAddress"], other.address);
  const withheld = known.inventory.get(own.address);
  assert.equal(withheld?.state, "quarantined");
  assert.match(withheld.problem ?? "", NOT_OURS);
  assert.match(withheld.problem ?? "", new RegExp(`link theirs \\(index ${theirs}\\)`));
  await client.close();
  await eventually(
    () => known.inventory.get(other.address)?.state,
    (state) => state === "reserved",
  );
  forged.set(other.address, String(theirs));
  await assert.rejects(client.request(), NOT_OURS);
  assert.deepEqual(await linksOf(netns, /^theirs$/), before);
});

test("a physical function that is renamed before its use is brought up, and not the link that has its name since", async (t) => {
  if (!needs(t, "root", "netns", "veth", "bridge")) return;
  const peers = closing(t, openPlace());
  let rename: (() => Promise<void>) | undefined;
  const sandbox = await openSandbox(t, {
    machine: { realLinks: true, pfs: 1, vfsPerPf: 2, numVfs: 0 },
    host: readingBy(async (path, text) => {
      if (path === `${PF}/sriov_numvfs`) await rename?.();
      return text;
    }),
  });
  const { netns } = sandbox.machine;
  const node = closing(t, { netns: netns.dup(), rtnl: Rtnl.open({ netns }) });
  const pf = await node.rtnl.linkByName("enp1s0f0");
  assert.ok(pf);
  await node.rtnl.setLink(pf.index, { up: false });
  let before: unknown;
  rename = async () => {
    rename = undefined;
    await node.rtnl.setLink(pf.index, { name: "renamed" });
    await addInnocent(node, peers, "enp1s0f0", { isUp: false });
    before = await linksOf(netns, /^enp1s0f0$/);
  };
  await sandbox.startForwarder();
  await offered(sandbox, 2);
  assert.ok(before);
  assert.deepEqual(await linksOf(netns, /^enp1s0f0$/), before);
  assert.equal((await node.rtnl.linkByIndex(pf.index))?.up, true);
});

test("a sysfs of another network namespace is reported by health and by a Request, and nothing is written", async (t) => {
  if (!needs(t, "root", "netns", "veth", "bridge")) return;
  const [elsewhere, peers] = [await ownPlace(t), closing(t, openPlace())];
  const machine = { realLinks: true, pfs: 1, vfsPerPf: 2, numVfs: 0 };
  const sandbox = await openSandbox(t, { machine, host: (host) => ({ ...host, netns: elsewhere.netns }) });
  const index = Number(await sandbox.machine.devices.readText(`${PF}/net/enp1s0f0/ifindex`));
  await addInnocent(elsewhere, peers, "enp1s0f0", { index, isUp: false });
  const before = [await ipDump(elsewhere.netns), await ipDump(sandbox.machine.netns)];
  const { health } = await sandbox.startForwarder();

  const both = `sysfs has its network device as enp1s0f0 \\(index ${index}, .*link ${index} of this process's network namespace is enp1s0f0`;
  const reported = health.conditions().find(({ code }) => code === "other-network-namespace");
  assert.match(reported?.sentence ?? "", new RegExp(both));
  assert.deepEqual([reported?.subject, health.ready.value], [PF, false]);
  const pod = new Pod("pod-1");
  t.after(() => pod.close());
  const client = sandbox.clientOf({ name: "pod-1", pod, tokenId: `sriov-${randomUUID()}` });
  t.after(() => client.hangUp());
  await assert.rejects(client.request(), new RegExp(both));
  assert.deepEqual(sandbox.changes.seen, []);
  assert.deepEqual([await ipDump(elsewhere.netns), await ipDump(sandbox.machine.netns)], before);
});

for (const isRestarted of [false, true]) {
  const when = isRestarted ? "after a restart" : "at a Close";
  test(`a pod's own link that has the index and the name of the VF's stays where it is ${when}`, async (t) => {
    if (!needs(t, "root", "netns", "veth", "bridge")) return;
    const [elsewhere, peers] = [openPlace(), closing(t, openPlace())];
    t.after(() => elsewhere.rtnl.close());
    const sandbox = await openSandbox(t, { machine: { realLinks: true, pfs: 1, vfsPerPf: 1 } });
    await sandbox.startForwarder();
    await offered(sandbox, 1);
    const { client, pod } = await sandbox.startPod("pod-1");
    await client.request();
    if (isRestarted) {
      await sandbox.stopForwarder();
      await sandbox.startForwarder();
    }
    const inside = closing(t, { netns: pod.netns.dup(), rtnl: Rtnl.open({ netns: pod.netns }) });
    const own = await inside.rtnl.linkByName("nsm-1");
    assert.ok(own);
    await inside.rtnl.setLink(own.index, { netns: elsewhere.netns });
    await addInnocent(inside, peers, "nsm-1", { index: own.index });
    const before = await linksOf(pod.netns, /^nsm-1$/);
    await client.close();
    await eventually(
      async () => (await ipDump(sandbox.machine.netns)).links.map(({ ifname }) => ifname),
      (names) => names.includes("enp1s0f0v0"),
    );
    assert.deepEqual(await linksOf(pod.netns, /^nsm-1$/), before);
    assert.deepEqual(
      await linksOf(elsewhere.netns, /^nsm-1$/),
      [[], []],
      "its driver has taken it from where the pod had put it",
    );
    elsewhere.netns.close();
  });
}
