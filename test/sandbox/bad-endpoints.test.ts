// Whatever an endpoint answers: a clear error, an unchanged node, a Close for the endpoint, and the next one is served.
import assert from "node:assert/strict";
import { ping } from "../../sandbox/network/ping.ts";
import type { DesiredContext } from "../../sandbox/nsm/endpoint-context.ts";
import { SANDBOX_VLAN } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import type { Connection } from "../../src/gen/connection_pb.ts";
import { ipDump } from "./scenes/ip.ts";
import { refusal, runStories, type Scene, type Story } from "./scenes/story.ts";

/** What is wrong with one answer, and what the client hears. */
interface Row {
  readonly says: string;
  readonly want?: DesiredContext;
  readonly alter?: (reply: Connection) => void;
  readonly code?: string;
  readonly message: RegExp;
}

const badAddresses = [
  "10.0.0",
  "10.0.0.1/33",
  "224.0.0.1/32",
  "0.0.0.0/0",
  "127.0.0.1/8",
  "fe80::1%eth0/64",
  "; rm -rf /",
];

const rows: readonly Row[] = [
  { says: "the MAC 0a:55", want: { ethernet: { srcMac: "0a:55" } }, message: /"0a:55" as MAC address/ },
  { says: "a multicast MAC", want: { ethernet: { srcMac: "01:00:5e:00:00:01" } }, message: /multicast/ },
  { says: "the VLAN 4095", want: { ethernet: { vlanTag: 4095 } }, message: /"4095" as VLAN/ },
  { says: "the VLAN -1", want: { ethernet: { vlanTag: -1 } }, message: /"-1" as VLAN/ },
  { says: "an MTU of 2^31", want: { mtu: 2 ** 31 }, message: /"2147483648" as MTU/ },
  { says: "an MTU of 67", want: { mtu: 67 }, message: /"67" as MTU/ },
  { says: "an MTU that IPv6 cannot have", want: { mtu: 1000 }, message: /IPv6 is wanted/ },
  { says: "the route 10.0.0.0/33", want: { srcRoutes: [{ prefix: "10.0.0.0/33" }] }, message: /as route/ },
  {
    says: "a next hop of the other family",
    want: { srcRoutes: [{ prefix: "10.0.0.0/8", nextHop: "2001:db8::" }] },
    message: /as next hop/,
  },
  { says: "a rule for port 0", want: { policies: [{ from: "10.0.0.0/8", dstPort: "0" }] }, message: /as port range/ },
  { says: "a rule for protocol 4711", want: { policies: [{ proto: "4711" }] }, message: /as protocol/ },
  {
    says: "a neighbour without an address",
    want: { neighbours: [{ ip: "", hardwareAddress: "0a:55:44:33:22:11" }] },
    message: /as neighbour/,
  },
  ...badAddresses.map((address) => ({
    says: `the address ${address}`,
    alter: ({ context }: Connection) => void context?.ipContext?.srcIpAddrs.splice(0, 1, address),
    message: /as address/,
  })),
  {
    says: "five thousand addresses",
    alter: ({ context }) => void context?.ipContext?.srcIpAddrs.push(...Array<string>(5000).fill("10.0.0.1/32")),
    code: "INTERNAL",
    message: /5002 are more than the limit/,
  },
  {
    says: "a path that ends before us",
    alter: ({ path }) => void path?.pathSegments.splice(1),
    code: "INTERNAL",
    message: /its path has 1 segments/,
  },
  {
    says: "another connection in our place",
    alter: ({ path }) => {
      for (const segment of path?.pathSegments ?? []) segment.id = "another-connection";
    },
    code: "INTERNAL",
    message: /another connection in our place/,
  },
  {
    says: "an unknown id",
    alter: (reply) => {
      reply.id = "unknown";
    },
    code: "INTERNAL",
    message: /not on its path/,
  },
  {
    says: "a mechanism that it was not offered",
    alter: ({ mechanism }) => {
      if (mechanism) mechanism.type = "KERNEL";
    },
    code: "INTERNAL",
    message: /it chose mechanism "KERNEL"/,
  },
];

runStories(
  "an endpoint that answers with",
  {},
  {
    ...Object.fromEntries(
      rows.map((row): [string, Story] => [`${row.says} is refused`, (scene) => refused(scene, row)]),
    ),
    "an MTU of 0 leaves the MTU as it is": mtuUnset,
    "a path index far out is read at our own place": wildIndex,
    "nonsense to a refresh takes nothing from the client": hostileRefresh,
  },
);

async function refused(scene: Scene, { want, alter, code = "INVALID_ARGUMENT", message }: Row): Promise<void> {
  const { endpoint } = scene.sandbox;
  const pod = await scene.pod();
  endpoint.want(want ?? {});
  endpoint.knobs.alterReply = alter;
  const closes = endpoint.closes.length;
  try {
    await assert.rejects(scene.direct(pod).request(), refusal(code, message));
  } finally {
    endpoint.want({});
    endpoint.knobs.alterReply = undefined;
  }
  assert.equal(endpoint.closes.length, closes + 1);
  assert.deepEqual(await pod.pod.links(), []);
  await scene.serves(pod);
}

async function mtuUnset(scene: Scene): Promise<void> {
  const { endpoint } = scene.sandbox;
  endpoint.want({ mtu: 0 });
  const { client, pod } = await scene.pod();
  await client.request();
  assert.equal((await ipDump(pod.netns)).links.at(-1)?.["mtu"], 1500);
  await client.close();
}

async function wildIndex(scene: Scene): Promise<void> {
  const { endpoint } = scene.sandbox;
  const pod = await scene.pod();
  const client = scene.direct(pod);
  endpoint.knobs.alterReply = ({ path }) => {
    if (path) path.index = 4_294_967_295;
  };
  try {
    const { path, id } = await client.request();
    assert.deepEqual([path?.index, path?.pathSegments[1]?.id], [1, id]);
  } finally {
    endpoint.knobs.alterReply = undefined;
  }
  await client.close();
}

async function hostileRefresh(scene: Scene): Promise<void> {
  const { endpoint } = scene.sandbox;
  endpoint.want({ ethernet: { vlanTag: SANDBOX_VLAN } });
  const pod = await scene.pod();
  const client = scene.direct(pod);
  const { context } = await client.request();
  const to = context?.ipContext?.dstIpAddrs[0]?.split("/")[0] ?? "";
  const before = await ipDump(pod.pod.netns);
  for (const alter of [
    (reply: Connection) => void reply.path?.pathSegments.splice(0),
    (reply: Connection) => void reply.context?.ipContext?.srcIpAddrs.push("nonsense"),
  ]) {
    endpoint.knobs.alterReply = alter;
    await assert.rejects(client.request());
    endpoint.knobs.alterReply = undefined;
    assert.deepEqual(await ipDump(pod.pod.netns), before);
  }
  assert.notEqual(await ping({ netns: pod.pod.netns, to, clock }), undefined);
  await client.request();
  await client.close();
}
