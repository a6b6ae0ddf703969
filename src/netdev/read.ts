import {
  type Address,
  codeOf,
  type Link,
  type LinkPlace,
  type Neighbour,
  type Netns,
  type Route,
  type Rule,
} from "../kernel/index.ts";
import type { DesiredNetdev, DesiredRoute } from "./desired.ts";
import { NetdevError } from "./error.ts";
import { OUR_PROTOCOL, type Owned, ownsNeighbour, ownsRoute, ownTables } from "./owned.ts";
import { TABLE_LIMIT } from "./plan-routes.ts";

/** What is in a namespace, around one link of it. */
export interface ActualNetdev {
  readonly link: Link;
  /** Of the link. */
  readonly addresses: readonly Address[];
  /** Ours, and those of others to the same places, which decide metrics. */
  readonly routes: readonly Route[];
  /** Those with our mark. */
  readonly rules: readonly Rule[];
  /** Of the tables that one of ours can be, those that routes or rules of the namespace name, whatever made them. */
  readonly tables: ReadonlySet<number>;
  /** Ours on the link, and those of others at the addresses of the request. */
  readonly neighbours: readonly Neighbour[];
  /** IPv6 is switched off for the link; undefined where the kernel has no IPv6. */
  readonly ipv6Disabled: boolean | undefined;
  /** Groups that may open ping sockets, "0 2147483647"; undefined where that cannot be read. */
  readonly pingGroups: string | undefined;
}

/** One link can have no more by Requests. Where there are more, a process in the namespace has put our mark on entries of its own. */
const MOST_ENTRIES = 16_384;
/** Of one kind: with one more it is known that there are too many. */
const OF_EACH = { most: MOST_ENTRIES + 1 };

/** undefined when the link is not there (any more). */
export async function readNetdev(
  session: LinkPlace,
  ifindex: number,
  desired: DesiredEntries,
): Promise<ActualNetdev | undefined> {
  const link = await session.rtnl.linkByIndex(ifindex);
  return link && (await readAround(session, link, desired));
}

/** What of a request decides which entries of a namespace concern it. */
type DesiredEntries = Pick<DesiredNetdev, "routes" | "rules" | "neighbours">;

/**
 * The same around a link that was just looked up. A pod may have a million routes: of those of others only what can matter to
 * the request is kept.
 */
export async function readAround(
  { netns, rtnl }: LinkPlace,
  link: Link,
  desired: DesiredEntries,
): Promise<ActualNetdev> {
  const tables = new Set<number>();
  const noteTable = (table: number) => {
    if (table <= TABLE_LIMIT) tables.add(table);
  };
  const places = new Set([...desired.routes, ...desired.rules.flatMap((rule) => rule.routes)].map(placeOf));
  const isWanted = new Set(desired.neighbours.map(({ address }) => address));
  const within = bound(link.name);
  const disabled = readSysctl(netns, ipv6Sysctl(link.name));
  return {
    link,
    tables,
    addresses: within(await rtnl.addresses(link.index, undefined, OF_EACH)),
    routes: within(
      await rtnl.routes((route) => {
        noteTable(route.table);
        const { family, destination: address, prefixLength } = route;
        const isThere = places.has(placeOf({ destination: { family, address, prefixLength } }));
        return isThere || ownsRoute(link.index, route);
      }, OF_EACH),
    ),
    rules: within(
      await rtnl.rules((rule) => {
        noteTable(rule.table);
        return rule.protocol === OUR_PROTOCOL;
      }, OF_EACH),
    ),
    neighbours: within(
      await rtnl.neighbours(
        link.index,
        (neighbour) => isWanted.has(neighbour.address) || ownsNeighbour(neighbour),
        OF_EACH,
      ),
    ),
    ipv6Disabled: disabled === undefined ? undefined : disabled !== "0",
    pingGroups: readSysctl(netns, "net/ipv4/ping_group_range")?.replace(/\s+/g, " "),
  };
}

/** So many tables of one link are remembered: a Request has fewer rules. A pod that marks more of its own keeps their rules. */
const MOST_TABLES = 1_024;

/** `ownTables` of what is in the namespace, of which nothing is kept. */
export async function readOwnTables({ rtnl }: LinkPlace, ifindex: number, owned: Owned): Promise<readonly number[]> {
  const marked = new Map<number, Route>();
  await rtnl.routes((route) => {
    if (marked.size < MOST_TABLES && ownsRoute(ifindex, route)) marked.set(route.table, route);
    return false;
  });
  return ownTables(ifindex, [...marked.values()], owned);
}

function placeOf({ destination: { family, address, prefixLength } }: Pick<DesiredRoute, "destination">): string {
  return `${family} ${address}/${prefixLength}`;
}

/** Counts what is kept, of all kinds together. @throws {NetdevError} of kind "crowded". */
function bound(link: string): <T>(entries: readonly T[]) => readonly T[] {
  let kept = 0;
  return (entries) => {
    kept += entries.length;
    if (kept > MOST_ENTRIES) throw new NetdevError({ kind: "crowded", link, limit: MOST_ENTRIES });
    return entries;
  };
}

export function ipv6Sysctl(link: string): string {
  return `net/ipv6/conf/${link}/disable_ipv6`;
}

function readSysctl(netns: Netns, name: string): string | undefined {
  try {
    return netns.readSysctl(name);
  } catch (error) {
    // Not there (no IPv6), or hidden by a container runtime.
    if (codeOf(error) !== undefined) return undefined;
    throw error;
  }
}
