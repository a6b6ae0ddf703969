import type { IpFamily, PortRange } from "../kernel/index.ts";
import {
  invalid,
  parseHostPrefix,
  parseInterfaceName,
  parseMac,
  parseMtu,
  parseNextHop,
  parsePorts,
  parseProtocol,
  parseRoutePrefix,
  parseVlan,
} from "./parse.ts";
import { contains, networkOf, type Prefix, prefixText } from "./prefix.ts";

/** A link as a client shall have it: checked, canonical, without doubles. Plain data, so that it can be compared and kept. */
export interface DesiredNetdev {
  readonly name: string;
  /** undefined: as the driver has it. */
  readonly mtu: number | undefined;
  /** The address of the link and, on the PF, of its VF. undefined: as it is. */
  readonly mac: string | undefined;
  /** Tag that the PF puts on what the VF sends; 0 for none. */
  readonly vlan: number;
  readonly addresses: readonly Prefix[];
  readonly routes: readonly DesiredRoute[];
  readonly rules: readonly DesiredRule[];
  readonly neighbours: readonly DesiredNeighbour[];
}

export interface DesiredRoute {
  /** A network: the bits behind its length are zero. */
  readonly destination: Prefix;
  /** Reached on the link itself, whatever its addresses are; undefined: the destination is on the link. */
  readonly gateway: string | undefined;
}

export interface DesiredRule {
  readonly family: IpFamily;
  readonly from: Prefix | undefined;
  readonly ipProtocol: number | undefined;
  readonly sourcePorts: PortRange | undefined;
  readonly destinationPorts: PortRange | undefined;
  /** What its own table holds; never empty. */
  readonly routes: readonly DesiredRoute[];
}

interface DesiredNeighbour {
  readonly address: string;
  readonly mac: string;
}

/** A network, and by which host it is reached; without one it is the other end. */
export interface RequestedRoute {
  readonly prefix: string;
  readonly nextHop?: string | undefined;
}

/** A request as it comes over the wire, before it was checked. Empty texts are the same as none. */
export interface RequestedNetdev {
  readonly name: string;
  readonly mtu?: number | undefined;
  readonly mac?: string | undefined;
  readonly vlan?: number | undefined;
  /** Addresses of our end, with the length of their network. */
  readonly addresses: readonly string[];
  /** Addresses of the other end. */
  readonly peerAddresses: readonly string[];
  readonly routes: readonly RequestedRoute[];
  readonly policies: readonly {
    readonly from?: string | undefined;
    readonly protocol?: string | undefined;
    readonly sourcePort?: string | undefined;
    readonly destinationPort?: string | undefined;
    readonly routes: readonly RequestedRoute[];
  }[];
  readonly neighbours: readonly { readonly address: string; readonly mac: string }[];
}

/** More of one kind than this is a mistake or an attack: every entry is a kernel object in a client's pod. */
const MOST_ENTRIES = 1024;

/**
 * Checks a request and works out the routes it means.
 * @throws {NetdevError} of kind "invalid" for the first thing that makes no sense.
 */
export function desiredNetdev(requested: RequestedNetdev): DesiredNetdev {
  const name = parseInterfaceName(requested.name);
  const addresses = distinct(
    bounded("address", requested.addresses).map((text) => parseHostPrefix("address", text)),
    prefixText,
  );
  const peers = bounded("peer address", requested.peerAddresses).map((text) => parseHostPrefix("peer address", text));
  const mtu = requested.mtu === undefined ? undefined : parseMtu(requested.mtu);
  const policies = bounded("rule", requested.policies);
  const routes = bounded("route", requested.routes).map((route) => viaPeer(parseRoute(route), peers));
  const rules = policies.map(parsePolicy);
  checkIpv6Mtu(mtu, [...addresses, ...routes.map((route) => route.destination), ...rules]);
  return {
    name,
    mtu,
    mac: requested.mac ? parseMac("MAC address", requested.mac) : undefined,
    vlan: parseVlan(requested.vlan ?? 0),
    addresses,
    routes: distinct([...linkRoutes(addresses, peers), ...routes], routeText),
    rules: distinct(rules, ruleText),
    // Of two for one address the last counts, as if the one had replaced the other.
    neighbours: distinct(bounded("neighbour", requested.neighbours).map(parseNeighbour), (entry) => entry.address),
  };
}

/** One route to each address of the other end that our own networks do not hold. */
function linkRoutes(addresses: readonly Prefix[], peers: readonly Prefix[]): DesiredRoute[] {
  return peers
    .filter((peer) => !addresses.some((own) => contains(own, peer.address)))
    .map((peer) => ({ destination: { ...peer, prefixLength: peer.family === 4 ? 32 : 128 }, gateway: undefined }));
}

/** A route without a next hop goes through the other end, unless its destination is a network of the other end itself. */
function viaPeer(route: DesiredRoute, peers: readonly Prefix[]): DesiredRoute {
  if (route.gateway !== undefined) return route;
  const { family, address } = route.destination;
  const sameFamily = peers.filter((peer) => peer.family === family);
  if (sameFamily.some((peer) => contains(peer, address))) return route;
  return { ...route, gateway: sameFamily[0]?.address };
}

function parseRoute(requested: RequestedRoute): DesiredRoute {
  const destination = parseRoutePrefix(requested.prefix);
  return { destination, gateway: requested.nextHop ? parseNextHop(requested.nextHop, destination) : undefined };
}

function parsePolicy(requested: RequestedNetdev["policies"][number]): DesiredRule {
  const from = requested.from ? networkOf(parseRoutePrefix(requested.from, "rule")) : undefined;
  const family = from?.family ?? 4;
  const routes = bounded("route", requested.routes).map(parseRoute);
  const mismatched = routes.find((route) => route.destination.family !== family);
  if (mismatched) {
    throw invalid(
      "route",
      prefixText(mismatched.destination),
      `it belongs to an IPv${family} rule and is of the other family`,
    );
  }
  // Its table must lead somewhere, in the family of the rule.
  const everything: DesiredRoute = {
    destination: { family, address: family === 4 ? "0.0.0.0" : "::", prefixLength: 0 },
    gateway: undefined,
  };
  return {
    family,
    from,
    ipProtocol: requested.protocol ? parseProtocol(requested.protocol) : undefined,
    sourcePorts: requested.sourcePort ? parsePorts(requested.sourcePort) : undefined,
    destinationPorts: requested.destinationPort ? parsePorts(requested.destinationPort) : undefined,
    routes: routes.length > 0 ? distinct(routes, routeText) : [everything],
  };
}

function parseNeighbour(requested: { readonly address: string; readonly mac: string }): DesiredNeighbour {
  return {
    address: parseHostPrefix("neighbour", requested.address).address,
    mac: parseMac("neighbour", requested.mac),
  };
}

/** The kernel takes IPv6 off a link whose MTU is below 1280 (RFC 8200 §5). */
function checkIpv6Mtu(mtu: number | undefined, entries: readonly { readonly family: IpFamily }[]): void {
  if (mtu !== undefined && mtu < 1280 && entries.some((entry) => entry.family === 6)) {
    throw invalid("MTU", String(mtu), "IPv6 is wanted on the link too, which needs 1280 or more");
  }
}

/** What a route is, as text: two with the same text are the same. */
export function routeText(route: DesiredRoute): string {
  return `${prefixText(route.destination)} via ${route.gateway ?? "link"}`;
}

/** Which packets a rule takes: of a request, or of a rule that is in force. */
export interface RuleSelector extends Omit<DesiredRule, "routes" | "from"> {
  readonly from: Omit<Prefix, "family"> | undefined;
}

/** What packets a rule takes, as text, without where it sends them. */
export function ruleSelector(rule: RuleSelector): string {
  const ports = (range: PortRange | undefined) => (range ? `${range.first}-${range.last}` : "*");
  const from = rule.from && rule.from.prefixLength > 0 ? `${rule.from.address}/${rule.from.prefixLength}` : "all";
  const { ipProtocol, sourcePorts, destinationPorts } = rule;
  return `IPv${rule.family} from ${from} proto ${ipProtocol ?? "*"} sport ${ports(sourcePorts)} dport ${ports(destinationPorts)}`;
}

function ruleText(rule: DesiredRule): string {
  return `${ruleSelector(rule)}: ${rule.routes.map(routeText).sort().join(", ")}`;
}

function bounded<T>(part: Parameters<typeof invalid>[0], entries: readonly T[]): readonly T[] {
  if (entries.length <= MOST_ENTRIES) return entries;
  throw invalid(part, `${entries.length} entries`, `at most ${MOST_ENTRIES} are taken`);
}

function distinct<T>(entries: readonly T[], text: (entry: T) => string): T[] {
  return [...new Map(entries.map((entry) => [text(entry), entry])).values()];
}
