import { type Address, type Neighbour, type Route, RT_TABLE_LOCAL, RT_TABLE_MAIN, type Rule } from "../kernel/index.ts";
import type { Change } from "./change.ts";

/**
 * The mark on every address, route, rule and neighbour that is ours (IFA_PROTO, RTA_PROTOCOL, FRA_PROTOCOL,
 * NDA_PROTOCOL): what does not carry it belongs to the pod and is never touched. A number that neither the kernel nor
 * /etc/iproute2/rt_protos assigns.
 */
export const OUR_PROTOCOL = 110;

/** Table that the kernel tries last; like main and local never ours. */
const RT_TABLE_DEFAULT = 253;

/** What the kernel's marks alone cannot say. Plain data, kept for as long as the link is in the pod. */
export interface Owned {
  /** Addresses we added, "10.0.0.1/24": kernels before 5.18 keep no mark on an address. */
  readonly addresses: readonly string[];
  /** Tables of our policy rules: a link that went down has lost its routes, and with them the mark. */
  readonly tables: readonly number[];
  /** We have set the MTU; when none is requested any more, the original one is restored. */
  readonly mtu: boolean;
}

export const NOTHING_OWNED: Owned = { addresses: [], tables: [], mtu: false };

export function ownsAddress(owned: Owned, address: Address): boolean {
  if (address.protocol === OUR_PROTOCOL) return true;
  return address.protocol === 0 && owned.addresses.includes(`${address.address}/${address.prefixLength}`);
}

/** Several of our links may be in one pod: a route is of the link that it leaves by. */
export function ownsRoute(ifindex: number, route: Route): boolean {
  return route.protocol === OUR_PROTOCOL && route.ifindex === ifindex;
}

export function ownsNeighbour(neighbour: Neighbour): boolean {
  return neighbour.permanent && neighbour.protocol === OUR_PROTOCOL;
}

/** The tables of this link's rules: those we remember, and those that hold marked routes through the link. */
export function ownTables(ifindex: number, routes: readonly Route[], owned: Owned): number[] {
  const marked = routes.filter((route) => ownsRoute(ifindex, route)).map((route) => route.table);
  const shared = [RT_TABLE_MAIN, RT_TABLE_LOCAL, RT_TABLE_DEFAULT];
  return [...new Set([...owned.tables, ...marked])].filter((table) => !shared.includes(table));
}

/** A rule has no link: it is known by its mark and by the table it leads to. */
export function ownsRule(tables: ReadonlySet<number>, rule: Rule): boolean {
  return rule.protocol === OUR_PROTOCOL && tables.has(rule.table);
}

/** What is to be remembered once these changes are made: the kernel's marks will not say it. */
export function ownedWith(owned: Owned, changes: readonly Change[], originalMtu: number): Owned {
  const addresses = new Set(owned.addresses);
  const tables = new Set(owned.tables);
  let { mtu } = owned;
  for (const change of changes) {
    if (change.kind === "add-address") addresses.add(`${change.address.address}/${change.address.prefixLength}`);
    if (change.kind === "add-rule") tables.add(change.rule.table);
    if (change.kind === "mtu") mtu = change.mtu !== originalMtu;
  }
  return { addresses: [...addresses], tables: [...tables], mtu };
}
