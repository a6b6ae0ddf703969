import { ConnectionEventType } from "../../src/gen/connection_pb.ts";
import { ping, pingUntilAnswered } from "../network/ping.ts";
import { SANDBOX_FORWARDER, SANDBOX_RESOURCE, type SandboxPod } from "../sandbox.ts";
import { pictureOf, type VfPicture } from "./node-picture.ts";
import type { Stage } from "./stage.ts";
import { eventually, expectSame, expectThat, NotSo, type Step } from "./steps.ts";

const PATIENCE_MS = 120_000;
const PINGS = 3;

/** One pod's connection from its token to the first ping. */
export function connectSteps(stage: Stage, at: number): readonly Step[] {
  return [
    { title: "kubelet gives a token", run: () => admitPod(stage, `client-${at + 1}`) },
    { title: "Request answered", run: () => request(stage, at) },
    { title: "VF bound and set up", run: () => vfReady(stage, at) },
    { title: "link in the pod", run: () => linkInPod(stage, at) },
    { title: "endpoint asked", run: () => endpointRequested(stage, at) },
    { title: "ping across the wire", run: () => pingAcross(stage, at) },
  ];
}

async function admitPod(stage: Stage, name: string): Promise<string> {
  const pod = await stage.sandbox.startPod(name);
  stage.pods.push(pod);
  expectSame("devices of the pod", pod.allocation.ids, [pod.tokenId]);
  return `${SANDBOX_RESOURCE} = ${pod.tokenId.slice(0, 15)}…, in the environment of the pod`;
}

async function request(stage: Stage, at: number): Promise<string> {
  const { client, name } = stage.pod(at);
  const connection = await client.request();
  const names = connection.path?.pathSegments.map((segment) => segment.name);
  expectSame("path", names, [name, stage.sandbox.nsmgr.name, SANDBOX_FORWARDER, stage.sandbox.endpoint.name]);
  expectSame("mechanism", connection.mechanism?.type, "KERNEL");
  return `answered with ${connection.mechanism?.parameters["pciAddress"]} for ${connection.context?.ipContext?.srcIpAddrs.join(", ")}`;
}

/** The VF that the answer names, as the node has it. */
export async function vfOf(stage: Stage, pod: SandboxPod): Promise<VfPicture> {
  const address = pod.client.connection?.mechanism?.parameters["pciAddress"];
  const vfs = (await pictureOf(stage.sandbox.machine)).flatMap((pf) => pf.vfs);
  const vf = vfs.find((one) => one.address === address);
  if (vf === undefined) throw new NotSo("the PCI address of a virtual function", String(address));
  return vf;
}

async function vfReady(stage: Stage, at: number): Promise<string> {
  const vf = await vfOf(stage, stage.pod(at));
  const before = vfBefore(stage, vf);
  const desired = stage.pod(at).client.connection?.context?.ethernetContext;
  expectSame("driver", vf.driver, before.driver);
  expectSame("netdev in the host's namespace", vf.netdev ?? "none", "none");
  expectSame("MAC given by the PF", vf.port.mac, desired?.srcMac);
  expectSame("VLAN given by the PF", vf.port.vlan, desired?.vlanTag);
  return `VF ${vf.index} of ${vf.pf}: bound to ${vf.driver}, MAC ${vf.port.mac}, VLAN ${vf.port.vlan}`;
}

async function linkInPod(stage: Stage, at: number): Promise<string> {
  const { pod, client } = stage.pod(at);
  const before = vfBefore(stage, await vfOf(stage, stage.pod(at)));
  const [link, ...others] = await pod.links();
  expectThat(link !== undefined && others.length === 0, "one link in the pod", `${others.length + (link ? 1 : 0)}`);
  expectSame(
    "device",
    { name: link.name, wireEnd: link.peerIndex, up: link.up },
    { name: "nsm-1", wireEnd: before.wireEnd, up: true },
  );
  expectThat(before.wireEnd !== undefined, "a device that can be followed by its other end", "one without");
  expectSame("addresses", link.addresses, [...(client.connection?.context?.ipContext?.srcIpAddrs ?? [])].sort());
  const routes = client.connection?.context?.ipContext?.srcRoutes.map(({ prefix }) => prefix) ?? [];
  for (const route of routes) expectThat(link.routes.includes(route), `a route to ${route}`, link.routes.join(", "));
  expectSame("MAC", link.mac, client.connection?.context?.ethernetContext?.srcMac);
  return `${before.netdev} is nsm-1 in ${pod.name}, up, ${link.addresses.join(" ")}`;
}

function vfBefore(stage: Stage, vf: VfPicture): VfPicture {
  const before = stage.before.flatMap((pf) => pf.vfs).find(({ address }) => address === vf.address);
  if (before === undefined) throw new NotSo(`${vf.address} to be there from the beginning`, "it was not");
  return before;
}

async function endpointRequested(stage: Stage, at: number): Promise<string> {
  const { endpoint } = stage.sandbox;
  const { client } = stage.pod(at);
  const own = client.connection?.path?.pathSegments.at(-1)?.id;
  const requested = endpoint.requests.filter(({ id }) => id === own);
  expectSame("Requests at the endpoint", requested.length, 1);
  expectSame("path at the endpoint", requested[0]?.path?.pathSegments.length, 4);
  return `${endpoint.name} checked four chained tokens and answered with NOOP`;
}

async function pingAcross(stage: Stage, at: number): Promise<string> {
  const { pod, client } = stage.pod(at);
  const found: string[] = [];
  for (const prefix of client.connection?.context?.ipContext?.dstIpAddrs ?? []) {
    const to = prefix.split("/")[0] ?? "";
    const rtts: number[] = [];
    // Not counted: a link that was just made may need a second for its carrier and its neighbour.
    await pingUntilAnswered({ netns: pod.netns, to, tries: 5, clock: stage.clock });
    for (let tries = 0; tries < PINGS; tries++) {
      const rttMs = await ping({ netns: pod.netns, to, clock: stage.clock });
      if (rttMs !== undefined) rtts.push(rttMs);
    }
    expectSame(`answers from ${to}`, rtts.length, PINGS);
    found.push(`${to} in ${Math.min(...rtts).toFixed(2)} ms`);
  }
  expectThat(found.length > 0, "an address to ping", "none");
  return `${PINGS} of ${PINGS} from ${found.join(", ")}`;
}

/** A refresh that wants nothing new. */
export function refreshSteps(stage: Stage): readonly Step[] {
  return [{ title: "nothing is touched", run: () => refresh(stage) }];
}

async function refresh(stage: Stage): Promise<string> {
  const { client, pod } = stage.pod(0);
  const { changes } = stage.sandbox;
  const before = await pod.links();
  changes.watchNetns(pod.name, pod.netns);
  changes.forget();
  const wasId = client.connection?.path?.pathSegments.map(({ id }) => id);
  const connection = await client.request();
  expectSame(
    "ids",
    connection.path?.pathSegments.map(({ id }) => id),
    wasId,
  );
  await changes.hasHeardAll();
  expectSame("changes in the kernel", changes.seen, []);
  expectSame("links in the pod", await pod.links(), before);
  return "0 writes: no file, no link, no address, no VF setting was touched";
}

/** Back to the node as it was. */
export function closeSteps(stage: Stage): readonly Step[] {
  return [
    { title: "connections closed", run: () => closeAll(stage) },
    { title: "VFs are restored", run: () => nodeAsBefore(stage) },
  ];
}

async function closeAll(stage: Stage): Promise<string> {
  const { endpoint, nsmgr } = stage.sandbox;
  const record = nsmgr.watch(SANDBOX_FORWARDER);
  for (const { client } of stage.pods) {
    const id = client.connection?.path?.pathSegments[2]?.id ?? "";
    await client.close();
    await record.next(({ type, connections }) => type === ConnectionEventType.DELETE && id in connections, PATIENCE_MS);
  }
  record.stop();
  expectSame("Closes at the endpoint", endpoint.closes.length, stage.pods.length);
  for (const { pod } of stage.pods) expectSame(`links left in ${pod.name}`, (await pod.links()).length, 0);
  return `${stage.pods.length} connections; NSMgr heard DELETE, endpoint heard Close, the pods are empty`;
}

async function nodeAsBefore(stage: Stage): Promise<string> {
  const { sandbox, clock, before } = stage;
  // Each driver has made another network device: with another end on the wire.
  const withoutEnds = (picture: typeof before) =>
    JSON.stringify(picture, (key, value) => (key === "wireEnd" ? undefined : value));
  const should = withoutEnds(before);
  let seen = "";
  await eventually(clock, {
    expected: "every virtual function as it was: driver, netdev, name, MTU, MAC, VLAN",
    limitMs: PATIENCE_MS,
    async observe() {
      seen = withoutEnds(await pictureOf(sandbox.machine));
      return seen === should ? true : undefined;
    },
    seen: () => firstDifference(should, seen),
  });
  return `all ${before.flatMap((pf) => pf.vfs).length} as before: driver, name, state, MTU, MAC, VLAN; each device that a pod had is a new one`;
}

/** The VF whose picture has changed, before and after. */
function firstDifference(before: string, after: string): string {
  const vfsOf = (text: string) => (JSON.parse(text) as { vfs: VfPicture[] }[]).flatMap(({ vfs }) => vfs);
  const was = vfsOf(before);
  const changed = vfsOf(after).find((vf, at) => JSON.stringify(vf) !== JSON.stringify(was[at]));
  const old = was.find(({ address }) => address === changed?.address);
  return changed === undefined ? after : `${JSON.stringify(changed)}\nand was ${JSON.stringify(old)}`;
}
