// VFs that the host uses itself: not offered, not taken, and again as soon as the host has let go of them.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { commonStandIns } from "../../sandbox/nic/sysfs.ts";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { SANDBOX_RESOURCE, Sandbox, type SandboxOptions, type SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import type { Forwarder } from "../../src/forwarder.ts";
import { type PciAddress, parsePciAddress } from "../../src/pci/index.ts";
import { RpcError } from "../../src/rpc/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";
import { ip, ipDump, ipNow } from "./scenes/ip.ts";
import { eventually, refusal, untilCleaned } from "./scenes/story.ts";
import { VFIO_NEEDS } from "./scenes/vfio-scene.ts";

const [FIRST, SECOND] = [parsePciAddress("0000:01:10.0"), parsePciAddress("0000:01:10.2")];
const NAME = "enp1s0f0v0";

/** A node with one physical function of two virtual ones, in which `ip` has run the commands before the forwarder starts. */
async function startNode(t: TestContext, commands: readonly string[], options: Partial<SandboxOptions> = {}) {
  const log = recordingLog();
  const machine = { pfs: 1, vfsPerPf: 2, realLinks: true, ...options.machine };
  const sandbox = await Sandbox.start({ log, clock: systemClock, ...options, machine });
  t.after(() => sandbox.stop());
  for (const command of commands) await ip(sandbox.machine.netns, command);
  const forwarder = await sandbox.startForwarder();
  return { sandbox, forwarder, log };
}

const healthOf = ({ kubelet }: Sandbox) =>
  (kubelet.devices.value?.get(SANDBOX_RESOURCE) ?? []).map(({ healthy }) => healthy).toSorted();

const isHealthy = (sandbox: Sandbox, count: number) =>
  eventually(
    () => healthOf(sandbox),
    (seen) => seen.length === 2 && seen.filter(Boolean).length === count,
  );

const reported = ({ health }: Forwarder) =>
  health.conditions().map(({ code, subject, sentence }) => ({ code, subject, sentence }));

/** Kubelet hears of a VF on another way than conditions do: neither says that the other is there. */
const areReported = (forwarder: Forwarder, count: number) =>
  eventually(
    () => reported(forwarder),
    ({ length }) => length === count,
  );

interface Use {
  readonly says: string;
  readonly begin: readonly string[];
  readonly end: readonly string[];
  readonly reason: RegExp;
}

const uses: readonly Use[] = [
  {
    says: "has an address",
    begin: [`address add 10.9.9.9/24 dev ${NAME}`],
    end: [`address del 10.9.9.9/24 dev ${NAME}`],
    reason: /enp1s0f0v0 has address 10\.9\.9\.9\/24; to end that: ip address del 10\.9\.9\.9\/24 dev enp1s0f0v0/,
  },
  {
    says: "has an IPv6 address",
    begin: [`address add 2001:db8::9/64 dev ${NAME} nodad`],
    end: [`address del 2001:db8::9/64 dev ${NAME}`],
    reason: /has address 2001:db8::9\/64/,
  },
  {
    says: "has the default route, and no address",
    begin: [`link set ${NAME} up`, `route add default dev ${NAME}`],
    end: [`route del default dev ${NAME}`],
    reason: /has the IPv4 default route; to end that: ip -4 route del default dev enp1s0f0v0/,
  },
  {
    says: "is one of two next hops of a default route in another table",
    begin: [
      `link set ${NAME} up`,
      "link add other type veth peer name far",
      "link set far up",
      "link set other up",
      `route add default table 77 nexthop dev ${NAME} nexthop dev other`,
    ],
    end: ["route del default table 77"],
    reason: /has the IPv4 default route/,
  },
  {
    says: "is a port of a bridge",
    begin: ["link add br7 type bridge", `link set ${NAME} master br7`],
    end: [`link set ${NAME} nomaster`],
    reason: /is a port of br7 \(bridge\); to end that: ip link set enp1s0f0v0 nomaster/,
  },
  {
    says: "carries a VLAN",
    begin: [`link add link ${NAME} name vlan9 type vlan id 9`],
    end: ["link del vlan9"],
    reason: /carries vlan9 \(vlan\); to end that: ip link del vlan9/,
  },
  {
    says: "carries a macvlan",
    begin: [`link add link ${NAME} name mac9 type macvlan mode bridge`],
    end: ["link del mac9"],
    reason: /carries mac9 \(macvlan\)/,
  },
];

for (const { says, begin, end, reason } of uses) {
  test(`a VF that ${says} is withheld as long as that is so, from the start and later`, async (t) => {
    if (!needs(t, "netns", "veth", "bridge", ...(says === "carries a VLAN" ? (["vlan"] as const) : []))) return;
    const { sandbox, forwarder } = await startNode(t, begin);
    const run = async (commands: readonly string[]) => {
      for (const command of commands) await ip(sandbox.machine.netns, command);
    };
    const isLogged = async () => {
      await isHealthy(sandbox, 1);
      const [condition] = await areReported(forwarder, 1);
      assert.deepEqual([condition?.code, condition?.subject], ["vf-withheld", FIRST]);
      assert.match(condition?.sentence ?? "", reason);
      assert.match(condition?.sentence ?? "", /or set hostUse: allow for its PF/);
      assert.match(forwarder.node.inventory.get(FIRST)?.problem ?? "", reason);
    };
    await isLogged();
    await run(end);
    await isHealthy(sandbox, 2);
    await areReported(forwarder, 0);
    const made = /^link add (?:link \S+ name )?(\S+)/;
    for (const command of begin) {
      const [, name] = made.exec(command) ?? [];
      const isLeft = name !== undefined && !end.some((one) => one.includes(name));
      if (isLeft) await ip(sandbox.machine.netns, `link del ${name}`);
    }
    await run(begin);
    await isLogged();
  });
}

test("what every link has of its own is no use: a VF that is up, with link-local addresses, is offered", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder } = await startNode(t, [
    `link set ${NAME} up`,
    `address add 169.254.7.7/16 dev ${NAME}`,
    `address add fe80::77/64 dev ${NAME} nodad`,
    `route add 10.8.0.0/16 dev ${NAME}`,
  ]);
  await isHealthy(sandbox, 2);
  assert.deepEqual(reported(forwarder), []);
});

/** The VF that a pod's token stands for. */
function ownOf(forwarder: Forwarder, { tokenId }: SandboxPod): PciAddress {
  const own = forwarder.node.inventory.snapshot().find((vf) => vf.tokenId === tokenId);
  return own?.address ?? assert.fail("the token stands for no VF");
}

/** In the host: its name does not change in the sandbox. */
const nameOf = (address: PciAddress) => (address === FIRST ? NAME : "enp1s0f0v1");

/** The pod's client as one that hears the forwarder's own codes and words. */
function direct(sandbox: Sandbox, { name, pod, tokenId }: SandboxPod) {
  return sandbox.directClient(name, { netns: pod.netns, parameters: { name: "nsm-1", tokenID: tokenId } });
}

/** All links but their counters, addresses, routes: what the host has. */
const hostOf = ({ machine }: Sandbox) => ipDump(machine.netns);

test("a VF that the host begins to use before its pod asks for it is not taken; another one is, where there is one", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder } = await startNode(t, []);
  await isHealthy(sandbox, 2);
  const one = await sandbox.startPod("client-1");
  const own = ownOf(forwarder, one);
  const use = `10.9.9.9/24 dev ${nameOf(own)}`;
  await ip(sandbox.machine.netns, `address add ${use}`);
  // No wait for kubelet: what was seen before the Request does not count.
  const { mechanism } = await one.client.request();
  assert.equal(mechanism?.parameters["pciAddress"], own === FIRST ? SECOND : FIRST);
  assert.match(await ip(sandbox.machine.netns, `address show dev ${nameOf(own)}`), /inet 10\.9\.9\.9\/24/);
  await isHealthy(sandbox, 1);

  // The other one is the first pod's now: a second pod finds none, and hears what the host has.
  await ip(sandbox.machine.netns, `address del ${use}`);
  await isHealthy(sandbox, 2);
  const two = await sandbox.startPod("client-2");
  await ip(sandbox.machine.netns, `address add ${use}`);
  await isHealthy(sandbox, 1);
  const before = await hostOf(sandbox);
  const why = /of 2, .*1 withheld, for the host uses it \(0000:01:10\.\d: enp1s0f0v\d has address 10\.9\.9\.9\/24/;
  await assert.rejects(direct(sandbox, two).request(), refusal("RESOURCE_EXHAUSTED", why));
  assert.deepEqual(await hostOf(sandbox), before);
  await ip(sandbox.machine.netns, `address del ${use}`);
  await isHealthy(sandbox, 2);
  await two.client.request();
  for (const { client } of [one, two]) await client.close();
});

test("a VF that the host begins to use while the endpoint is asked is left to the host", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder } = await startNode(t, []);
  await isHealthy(sandbox, 2);
  const pod = await sandbox.startPod("client-1");
  const own = ownOf(forwarder, pod);
  await ip(sandbox.machine.netns, "link add br7 type bridge");
  let isUsed = false;
  sandbox.endpoint.want(() => {
    if (!isUsed) ipNow(sandbox.machine.netns, `link set ${nameOf(own)} master br7`);
    isUsed = true;
    return {};
  });
  const why = /Cannot use 0000:01:10\.\d: the host uses it: enp1s0f0v\d is a port of br7 \(bridge\)/;
  await assert.rejects(direct(sandbox, pod).request(), refusal("UNAVAILABLE", why));
  assert.ok(isUsed);
  assert.match(await ip(sandbox.machine.netns, `link show dev ${nameOf(own)}`), /master br7/);
  await isHealthy(sandbox, 1);
  assert.deepEqual(
    (await areReported(forwarder, 1)).map(({ code, subject }) => [code, subject]),
    [["vf-withheld", own]],
  );
  // Asked again it gets the other one.
  const { mechanism } = await pod.client.request();
  assert.equal(mechanism?.parameters["pciAddress"], own === FIRST ? SECOND : FIRST);
  await pod.client.close();
});

test("what a client has stays the client's, whatever the host does with the name it had", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder, log } = await startNode(t, []);
  await isHealthy(sandbox, 2);
  const pod = await sandbox.startPod("client-1");
  await pod.client.request();
  const link = await pod.pod.link("nsm-1");
  const own = ownOf(forwarder, pod);
  await ip(sandbox.machine.netns, `link add ${nameOf(own)} type bridge`);
  await ip(sandbox.machine.netns, `address add 10.9.9.9/24 dev ${nameOf(own)}`);
  const other = own === FIRST ? SECOND : FIRST;
  await ip(sandbox.machine.netns, `address add 10.9.8.8/24 dev ${nameOf(other)}`);
  await isHealthy(sandbox, 1);
  await areReported(forwarder, 1);
  assert.deepEqual(
    log.of("vf-withheld").map((fields) => fields["vf"]),
    [other],
  );
  assert.deepEqual(await pod.pod.link("nsm-1"), link);
  await pod.client.request();
  await ip(sandbox.machine.netns, `link del ${nameOf(own)}`);
  await pod.client.close();
});

test("hostUse: allow gives pods what the host uses, from one list to the next", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder } = await startNode(t, [`address add 10.9.9.9/24 dev ${NAME}`]);
  await isHealthy(sandbox, 1);
  const { pfConfigFile } = sandbox;
  const before = pfConfigFile.text;
  pfConfigFile.write(before.replace("pfKernelDriver", "hostUse: allow\n    pfKernelDriver"));
  await isHealthy(sandbox, 2);
  await areReported(forwarder, 0);
  const pods = [await sandbox.startPod("client-1"), await sandbox.startPod("client-2")];
  for (const { client } of pods) await client.request();
  for (const { client } of pods) await client.close();
  await untilCleaned(forwarder);
  await ip(sandbox.machine.netns, `address add 10.9.9.9/24 dev ${NAME}`);
  pfConfigFile.write(before);
  await isHealthy(sandbox, 1);
});

test("a VF that the host uses keeps its driver: VFIO does not get it, nor its IOMMU group", async (t) => {
  if (!needs(t, ...VFIO_NEEDS)) return;
  const cgroups = PodCgroups.make() ?? assert.fail("no device cgroups");
  const machine = { pfs: 1, vfsPerPf: 2, realLinks: true, iommu: "pairs", vfioStandIns: commonStandIns } as const;
  const { sandbox } = await startNode(t, [], { machine, cgroups });
  t.after(() => cgroups.close());
  await isHealthy(sandbox, 2);
  const pod = await sandbox.startVfioPod("client-1");
  await ip(sandbox.machine.netns, `address add 10.9.9.9/24 dev ${NAME}`);
  const before = await hostOf(sandbox);
  const why = /the host uses|host uses it/;
  await assert.rejects(pod.client.request(), (error) => error instanceof RpcError && why.test(error.message));
  assert.deepEqual(await hostOf(sandbox), before);
  for (const address of [FIRST, SECOND]) {
    assert.match(await sandbox.machine.devices.readLink(`${address}/driver`), /\/igbvf$/);
  }
  await isHealthy(sandbox, 1); // What kubelet had of before says nothing of the end.
  await ip(sandbox.machine.netns, `address del 10.9.9.9/24 dev ${NAME}`);
  await isHealthy(sandbox, 2);
  await pod.client.request();
  await pod.client.close();
});
