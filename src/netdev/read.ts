import type { Address, Link, Neighbour, Netns, OpenRtnl, Route, Rtnl, Rule } from "../kernel/index.ts";

/** A namespace and a socket in it, for one piece of work. */
export interface Session {
  readonly netns: Netns;
  readonly rtnl: Rtnl;
}

/** What stands in a namespace, around one link of it. */
export interface StandingNetdev {
  readonly link: Link;
  /** Of the link. */
  readonly addresses: readonly Address[];
  /** Of the whole namespace: foreign ones decide metrics and which tables are free. */
  readonly routes: readonly Route[];
  readonly rules: readonly Rule[];
  /** Of the link. */
  readonly neighbours: readonly Neighbour[];
  /** IPv6 is switched off for the link; undefined where the kernel has no IPv6. */
  readonly ipv6Disabled: boolean | undefined;
  /** Groups that may open ping sockets, "0 2147483647"; undefined where that cannot be read. */
  readonly pingGroups: string | undefined;
}

/** Opens a session, runs the work and closes the socket; the namespace stays the caller's. */
export async function inSession<T>(
  netns: Netns,
  work: (session: Session) => Promise<T>,
  openRtnl: OpenRtnl,
): Promise<T> {
  const rtnl = openRtnl(netns);
  try {
    return await work({ netns, rtnl });
  } finally {
    rtnl.close();
  }
}

/** undefined when the link is not there (any more). */
export async function readNetdev(session: Session, ifindex: number): Promise<StandingNetdev | undefined> {
  const link = await session.rtnl.linkByIndex(ifindex);
  return link && (await readAround(session, link));
}

/** The same around a link that was just looked up. */
export async function readAround({ netns, rtnl }: Session, link: Link): Promise<StandingNetdev> {
  return {
    link,
    addresses: await rtnl.addresses(link.index),
    routes: await rtnl.routes(),
    rules: await rtnl.rules(),
    neighbours: await rtnl.neighbours(link.index),
    ipv6Disabled: readIpv6Disabled(netns, link.name),
    pingGroups: readSysctl(netns, "net/ipv4/ping_group_range")?.replace(/\s+/g, " "),
  };
}

export function ipv6Sysctl(link: string): string {
  return `net/ipv6/conf/${link}/disable_ipv6`;
}

function readIpv6Disabled(netns: Netns, link: string): boolean | undefined {
  const value = readSysctl(netns, ipv6Sysctl(link));
  return value === undefined ? undefined : value !== "0";
}

function readSysctl(netns: Netns, name: string): string | undefined {
  try {
    return netns.readSysctl(name);
  } catch (error) {
    // Not there (no IPv6), or hidden by a container runtime.
    if (error instanceof Error && "code" in error) return undefined;
    throw error;
  }
}
