// What stands on the node of one VF: its link, wherever it is, and what its PF keeps of it. What it should be is known without the
// forwarder: as before the first client, but for what the pod's endpoint has answered.
import type { Connection } from "../../src/gen/connection_pb.ts";
import type { Netns, Route } from "../../src/kernel/index.ts";
import type { Machine } from "../machine/machine.ts";
import type { MemoryLinks } from "./memory-links.ts";

type Facts = Readonly<Record<string, string>>;

export interface VfOnNode {
  /** undefined: it has none, as with vfio-pci. */
  readonly link: Facts | undefined;
  /** Its settings on the PF. */
  readonly port: Facts;
}

/** Which VF: of which PF, and which of them. */
export interface VfPlace {
  readonly address: string;
  readonly pf: string;
  readonly index: number;
}

interface ReadNode {
  readonly links: MemoryLinks;
  readonly machine: Pick<Machine, "pfPort">;
}

export function vfOnNode({ links, machine }: ReadNode, { address, pf, index }: VfPlace): VfOnNode {
  const itsPort = machine.pfPort({ address: pf });
  // What a VF has chosen itself its PF names, too, and is not to have set.
  const settings = Object.entries({ ...itsPort.settingsOf(index), mac: itsPort.adminMac(index) });
  const port = Object.fromEntries(settings.map(([name, value]) => [name, String(value)]));
  return { link: linkFacts(links, address), port };
}

function linkFacts(links: MemoryLinks, address: string): Facts | undefined {
  const found = links.whereIs(address);
  if (!found) return undefined;
  const { space, link } = found;
  const isOfLink = ({ ifindex }: { readonly ifindex?: number | undefined }) => ifindex === link.index;
  return {
    namespace: space.key,
    name: link.name,
    MAC: link.address,
    MTU: String(link.mtu),
    up: String(link.up),
    altnames: textOf(link.altNames),
    addresses: textOf(space.addresses.filter(isOfLink).map((one) => `${one.address}/${one.prefixLength}`)),
    routes: textOf(space.routes.filter(isOfLink).map(routeText)),
    rules: String(space.rules.length),
  };
}

/** What a VF should be with the pod that its client was answered. */
export function vfOfPod(before: VfOnNode, connection: Connection, netns: Netns): VfOnNode {
  const { srcMac = "", vlanTag = 0 } = connection.context?.ethernetContext ?? {};
  const port = { ...before.port, mac: srcMac, vlan: String(vlanTag) };
  if (connection.mechanism?.type !== "KERNEL") return { link: undefined, port };
  const { srcIpAddrs = [], dstIpAddrs = [], srcRoutes = [] } = connection.context?.ipContext ?? {};
  // The endpoint's own addresses are reached on the link, all else through the first of the same family.
  const gatewayTo = (prefix: string) => dstIpAddrs.find((peer) => peer.includes(":") === prefix.includes(":"));
  const routes = srcRoutes.map(({ prefix }) =>
    dstIpAddrs.includes(prefix) ? `${prefix} on the link` : `${prefix} via ${gatewayTo(prefix)?.split("/")[0]}`,
  );
  const link = {
    namespace: `${netns.id.dev}/${netns.id.ino}`,
    name: connection.mechanism.parameters["name"] ?? "",
    MAC: srcMac,
    MTU: String(connection.context?.MTU),
    up: "true",
    altnames: "none",
    addresses: textOf(srcIpAddrs),
    routes: textOf(routes),
    rules: "0",
  };
  return { link, port };
}

/** Where they differ, in words. */
export function vfDifferences(vf: string, seen: VfOnNode, desired: VfOnNode): readonly string[] {
  return [
    ...differences(`link of ${vf}`, seen.link, desired.link),
    ...differences(`port of ${vf}`, seen.port, desired.port),
  ];
}

function differences(of: string, seen: Facts | undefined, desired: Facts | undefined): readonly string[] {
  if (!seen || !desired) return seen === desired ? [] : [`${of}: ${seen ? "one" : "none"}, and should be otherwise`];
  return Object.entries(desired)
    .filter(([what, value]) => seen[what] !== value)
    .map(([what, value]) => `${what} of the ${of}: ${seen[what]}, and should be ${value}`);
}

function routeText({ destination, prefixLength, gateway }: Route): string {
  return `${destination}/${prefixLength} ${gateway === undefined ? "on the link" : `via ${gateway}`}`;
}

function textOf(all: readonly string[]): string {
  return [...all].sort().join(", ") || "none";
}
