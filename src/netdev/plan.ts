import type { Change } from "./change.ts";
import type { DesiredNetdev } from "./desired.ts";
import { NetdevError } from "./error.ts";
import { NOTHING_OWNED, OUR_PROTOCOL, type Owned, ownsAddress, ownsNeighbour } from "./owned.ts";
import { type PlannedEntries, planMainRoutes, planRules } from "./plan-routes.ts";
import { broadcastOf, type Prefix, prefixText } from "./prefix.ts";
import { type ActualNetdev, ipv6Sysctl } from "./read.ts";

/** Any group may open ping sockets: what clients of NSM expect of their namespace. */
const PING_GROUPS = "0 2147483647";

interface PlanInput {
  readonly actual: ActualNetdev;
  readonly desired: DesiredNetdev;
  readonly owned?: Owned;
  /** The MTU to go back to when none is desired any more. */
  readonly originalMtu: number;
  /** The first plan after the link came in: sets what belongs to the namespace as a whole, once. */
  readonly first?: boolean;
}

/**
 * The original's ipaddress, routes, iprule, ipneighbors, mtu and pinggrouprange as one plan: what to do, in this order, so that
 * the link is as desired. Empty when it is.
 *
 * New entries come before old ones go: losing its last address flushes the IPv4 routes of a link (fib_inetaddr_event,
 * net/ipv4/fib_frontend.c), and a running client must not lose a route that another one replaces.
 * @throws {NetdevError} when the request cannot be met beside what the pod itself has set.
 */
export function planChanges(input: PlanInput): Change[] {
  const { actual, desired, owned = NOTHING_OWNED } = input;
  const { link, routes: ownRoutes, rules: ownRules, tables: taken } = actual;
  const around = { ifindex: link.index, routes: ownRoutes, rules: ownRules, taken, owned };
  const addresses = planAddresses(actual, desired, owned);
  const routes = planMainRoutes(link.index, actual.routes, desired.routes);
  const rules = planRules({ ...around, desired: desired.rules });
  const neighbours = planNeighbours(actual, desired);
  return [
    ...planLink(input, owned),
    ...addresses.first,
    ...addresses.add,
    ...routes.add,
    ...rules.add,
    ...neighbours.add,
    // A rule goes before the table it leads to: an empty table would send its packets on to main.
    ...rules.remove,
    ...routes.remove,
    ...addresses.remove,
    ...neighbours.remove,
  ];
}

function planLink(input: PlanInput, owned: Owned): Change[] {
  const { actual, desired } = input;
  const { link } = actual;
  const changes: Change[] = [];
  if (input.first && actual.pingGroups !== undefined && actual.pingGroups !== PING_GROUPS) {
    changes.push({ kind: "sysctl", name: "net/ipv4/ping_group_range", value: PING_GROUPS, mayFail: true });
  }
  if (link.name !== desired.name) changes.push({ kind: "rename", name: desired.name });
  if (desired.mac !== undefined && desired.mac !== link.address) changes.push({ kind: "mac", mac: desired.mac });
  const mtu = desired.mtu ?? (owned.mtu ? input.originalMtu : link.mtu);
  if (mtu !== link.mtu) changes.push({ kind: "mtu", mtu: checkedMtu(actual, mtu) });
  if (actual.ipv6Disabled && wantsIpv6(desired)) {
    changes.push({ kind: "sysctl", name: ipv6Sysctl(desired.name), value: "0", mayFail: false });
  }
  // Renaming and some changes of the MAC take the link down.
  const goesDown = changes.some((change) => change.kind === "rename" || change.kind === "mac");
  if (!link.up || goesDown) changes.push({ kind: "up" });
  return changes;
}

function checkedMtu(actual: ActualNetdev, mtu: number): number {
  const { name, minMtu = 0, maxMtu = 0 } = actual.link;
  // A driver that names no limit reports 0.
  const max = maxMtu === 0 ? 65_535 : maxMtu;
  if (mtu < minMtu || mtu > max) throw new NetdevError({ kind: "mtu-out-of-range", link: name, mtu, min: minMtu, max });
  return mtu;
}

function wantsIpv6(desired: DesiredNetdev): boolean {
  const families = [...desired.addresses, ...desired.routes.map((route) => route.destination), ...desired.rules];
  return families.some((entry) => entry.family === 6);
}

function planAddresses(actual: ActualNetdev, desired: DesiredNetdev, owned: Owned) {
  const plan: PlannedEntries & { readonly first: Change[] } = { first: [], add: [], remove: [] };
  const desiredTexts = new Set(desired.addresses.map(prefixText));
  const present = new Set(actual.addresses.map(prefixText));
  for (const prefix of desired.addresses) {
    if (!present.has(prefixText(prefix))) plan.add.push({ kind: "add-address", address: newAddress(actual, prefix) });
  }
  for (const address of actual.addresses) {
    if (!ownsAddress(owned, address) || desiredTexts.has(prefixText(address))) continue;
    const { ifindex, prefixLength } = address;
    const change = { kind: "remove-address", address: { ifindex, address: address.address, prefixLength } } as const;
    // IPv6 takes an address only once, whatever the length of its network: here the old one has to go first.
    const blocks = address.family === 6 && desired.addresses.some((prefix) => prefix.address === address.address);
    if (blocks) plan.first.push(change);
    else plan.remove.push(change);
  }
  return plan;
}

function newAddress(actual: ActualNetdev, prefix: Prefix) {
  const broadcast = broadcastOf(prefix);
  return {
    ifindex: actual.link.index,
    address: prefix.address,
    prefixLength: prefix.prefixLength,
    protocol: OUR_PROTOCOL,
    ...(broadcast !== undefined && { broadcast }),
    // The endpoint gave the address out and knows that it is free: no second of waiting for an answer that does not come.
    ...(prefix.family === 6 && { noDad: true }),
  };
}

function planNeighbours(actual: ActualNetdev, desired: DesiredNetdev) {
  const plan: PlannedEntries = { add: [], remove: [] };
  const ifindex = actual.link.index;
  for (const { address, mac } of desired.neighbours) {
    const there = actual.neighbours.find((neighbour) => neighbour.address === address);
    if (there?.permanent && there.mac === mac) continue;
    if (there?.permanent && !ownsNeighbour(there)) {
      throw new NetdevError({ kind: "neighbour-taken", address, mac: there.mac ?? "no address" });
    }
    plan.add.push({ kind: "add-neighbour", neighbour: { ifindex, address, mac, protocol: OUR_PROTOCOL } });
  }
  const kept = new Set(desired.neighbours.map((neighbour) => neighbour.address));
  for (const neighbour of actual.neighbours) {
    if (!ownsNeighbour(neighbour) || kept.has(neighbour.address)) continue;
    plan.remove.push({ kind: "remove-neighbour", neighbour: { ifindex, address: neighbour.address } });
  }
  return plan;
}
