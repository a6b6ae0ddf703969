import { Errno, KernelError, type NetlinkEvent, type Netns, type Rtnl, type SetLink } from "../../src/kernel/index.ts";
import { type MemoryLink, MTU, type Netspace, seen } from "./netspace.ts";

/** What rtnetlink of one namespace asks of the others. */
export interface RtnlParts {
  readonly spaceOf: (netns: Netns) => Netspace;
  /** A link has come to another namespace. */
  readonly moved: (link: MemoryLink, to: Netspace) => void;
  /** Hands news over after those before them. */
  readonly notifyLater: (notify: () => void) => void;
}

type Like<T> = { readonly [Key in keyof T]: T[Key] };
type Change<Method extends keyof Rtnl> = Rtnl[Method] extends (what: infer What) => Promise<void> ? What : never;

/** A socket in a namespace in memory. */
export function openMemoryRtnl(space: Netspace, parts: RtnlParts): Rtnl {
  return new MemoryRtnl(space, parts) as Like<Rtnl> as Rtnl; // the real one has fields of its own
}

const MAIN_TABLE = 254;
const LAST_RULE = 32_766;
const IPV6_METRIC = 1024;

class MemoryRtnl implements Like<Rtnl> {
  readonly #space: Netspace;
  readonly #parts: RtnlParts;
  readonly #stops = new Set<() => void>();

  constructor(space: Netspace, parts: RtnlParts) {
    this.#space = space;
    this.#parts = parts;
  }

  close(): void {
    for (const stop of this.#stops) stop();
  }

  links = async () => [...this.#space.links.values()].map(seen);
  linksNamedOrAbove = async (names: ReadonlySet<string>) => (await this.links()).filter(({ name }) => names.has(name));
  linkByName = async (name: string) => optional(this.#space.named(name));
  linkByIndex = async (index: number) => optional(this.#space.links.get(index));
  namespaceId = async () => undefined;
  vfCount = async () => 0;
  vfInfos = async () => [];
  addresses: Rtnl["addresses"] = async (ifindex = 0, concerns = () => true) => {
    if (ifindex !== 0) this.#space.link(ifindex, "list the addresses");
    return this.#space.addresses.filter((one) => (ifindex === 0 || one.ifindex === ifindex) && concerns(one));
  };
  neighbours: Rtnl["neighbours"] = async (ifindex = 0, concerns = () => true) =>
    this.#space.neighbours.filter((one) => (ifindex === 0 || one.ifindex === ifindex) && concerns(one));
  routes: Rtnl["routes"] = async (concerns = () => true) => this.#space.routes.filter(concerns);
  rules: Rtnl["rules"] = async (concerns = () => true) => this.#space.rules.filter(concerns);
  createLink = async () => refuse("make a link", "EOPNOTSUPP");
  setVf = async () => refuse("set a VF", "EOPNOTSUPP");

  deleteLink = async (index: number) => {
    this.#space.link(index, `delete link ${index}`);
    refuse(`delete link ${index}`, "EOPNOTSUPP"); // as of a link without a kind
  };

  async defaultRoutes(ifindex = 0) {
    return this.#space.routes
      .filter((route) => route.prefixLength === 0 && (ifindex === 0 || route.ifindex === ifindex))
      .map(({ family, table, gateway, ifindex: via }) => ({ family, table, gateway, ifindexes: via ? [via] : [] }));
  }

  async setLink(index: number, change: SetLink): Promise<void> {
    const { netns, name, mtu, address, up, addAltNames = [], removeAltNames = [] } = change;
    const op = `set ${Object.keys(change).join(", ")} of link ${index}`;
    const link = this.#space.link(index, op);
    for (const alias of removeAltNames) if (!link.altNames.includes(alias)) refuse(op, "ENOENT");
    link.altNames = link.altNames.filter((alias) => !removeAltNames.includes(alias));
    const space = netns ? this.#move(link, this.#parts.spaceOf(netns), name, op) : this.#space;
    if (mtu !== undefined && (mtu < MTU.least || mtu > MTU.most)) {
      refuse(
        op,
        "EINVAL",
        `mtu ${mtu < MTU.least ? "less" : "greater"} than device ${mtu < MTU.least ? "minimum" : "maximum"}`,
      );
    }
    if (!netns && name !== undefined && name !== link.name) this.#rename(link, name, op);
    Object.assign(link, { ...(mtu !== undefined && { mtu }), ...(address !== undefined && { address }) });
    if (up === false) space.goDown(link);
    if (up === true) link.up = true;
    for (const alias of addAltNames) {
      if (space.named(alias)) refuse(op, "EEXIST");
      link.altNames.push(alias);
    }
    space.notifyLink("new-link", link);
  }

  #rename(link: MemoryLink, desired: string, op: string): void {
    if (link.up) refuse(op, "EBUSY");
    const name = this.#space.freeName(desired);
    const holder = this.#space.named(name);
    if (holder && (holder !== link || link.altNames.includes(name))) refuse(op, "EEXIST");
    link.name = name;
  }

  #move(link: MemoryLink, to: Netspace, desired = link.name, op: string): Netspace {
    const name = to.freeName(desired);
    if ([name, ...link.altNames].some((one) => to.named(one))) refuse(op, "EEXIST");
    this.#space.take(link);
    link.name = name;
    to.put(link);
    this.#parts.moved(link, to);
    return to;
  }

  async addAddress({ ifindex, address, prefixLength, protocol = 0 }: Change<"addAddress">): Promise<void> {
    const op = `add address ${address}/${prefixLength} to link ${ifindex}`;
    const { name } = this.#space.link(ifindex, op);
    const family = familyOf(address);
    if (family === 6 && this.#space.sysctls.get(`net/ipv6/conf/${name}/disable_ipv6`) === "1") refuse(op, "EACCES");
    if (this.#space.addresses.some((one) => one.ifindex === ifindex && one.address === address)) refuse(op, "EEXIST");
    const state = { permanent: true, tentative: false, duplicate: false };
    const added = { ifindex, family, address, prefixLength, scope: 0, protocol, ...state };
    this.#space.addresses.push(added);
    this.#space.notify({ kind: "new-address", address: added });
  }

  async deleteAddress({ ifindex, address }: Change<"deleteAddress">): Promise<void> {
    const gone = this.#space.addresses.find((one) => one.ifindex === ifindex && one.address === address);
    if (!gone) return refuse(`delete address ${address} of link ${ifindex}`, "EADDRNOTAVAIL");
    this.#space.addresses = without(this.#space.addresses, gone);
    this.#space.notify({ kind: "gone-address", address: gone });
  }

  async addRoute(route: Change<"addRoute">): Promise<void> {
    const { family, destination, prefixLength, gateway, ifindex = 0, table = MAIN_TABLE, onlink = false } = route;
    const op = `add route ${destination}/${prefixLength} on link ${ifindex}`;
    if (!this.#space.link(ifindex, op).up) refuse(op, "ENETDOWN");
    const metric = route.metric || (family === 6 ? IPV6_METRIC : 0);
    const at = this.#space.routes.findIndex((one) => isSamePlace(one, { ...route, table, metric }));
    if (at >= 0 && (!route.prepend || family === 6)) refuse(op, "EEXIST");
    if (family === 4 && hasBitsBehind(destination, prefixLength))
      refuse(op, "EINVAL", "Invalid prefix for given prefix length");
    if (gateway !== undefined && !onlink) refuse(op, "ENETUNREACH", "Nexthop has invalid gateway");
    const { protocol = 0, scope = 0 } = route;
    const how = { metric, onlink, type: 1, scope: family === 6 ? 0 : scope };
    const added = { family, destination, prefixLength, gateway, ifindex, table, protocol, ...how };
    this.#space.routes.splice(at < 0 ? this.#space.routes.length : at, 0, added);
    if (prefixLength === 0) {
      const known = { family, table, gateway, ifindexes: [ifindex] };
      this.#space.notify({ kind: "default-route", route: known });
    }
  }

  async deleteRoute(route: Change<"deleteRoute">): Promise<void> {
    const { destination, prefixLength, gateway, ifindex, table = MAIN_TABLE, metric = 0 } = route;
    const gone = this.#space.routes.find(
      (one) =>
        isSamePlace(one, { ...route, table, metric: metric || one.metric }) &&
        (ifindex === undefined || one.ifindex === ifindex) &&
        (gateway === undefined || one.gateway === gateway),
    );
    if (!gone) return refuse(`delete route ${destination}/${prefixLength}`, "ESRCH");
    this.#space.routes = without(this.#space.routes, gone);
  }

  async addRule(rule: Change<"addRule">): Promise<void> {
    const { family, table, from, ipProtocol, sourcePorts, destinationPorts, protocol = 0 } = rule;
    const lowest = Math.min(LAST_RULE, ...this.#space.rules.map((one) => one.priority));
    const what = { family, from, ipProtocol, sourcePorts, destinationPorts, table, protocol };
    this.#space.rules.unshift({ ...what, priority: rule.priority ?? lowest - 1 });
  }

  async deleteRule(rule: Change<"deleteRule">): Promise<void> {
    const { family, table, priority } = rule;
    const gone = this.#space.rules.find(
      (one) => one.family === family && one.table === table && (priority === undefined || one.priority === priority),
    );
    if (!gone) return refuse(`delete the IPv${family} rule to table ${table}`, "ENOENT");
    this.#space.rules = without(this.#space.rules, gone);
  }

  async addNeighbour({ ifindex, address, mac, protocol = 0 }: Change<"addNeighbour">): Promise<void> {
    this.#space.link(ifindex, `add neighbour ${address} to link ${ifindex}`);
    const others = this.#space.neighbours.filter((one) => one.ifindex !== ifindex || one.address !== address);
    const added = { ifindex, family: familyOf(address), address, mac, permanent: true, protocol };
    this.#space.neighbours = [...others, added];
  }

  async deleteNeighbour({ ifindex, address }: Change<"deleteNeighbour">): Promise<void> {
    const gone = this.#space.neighbours.find((one) => one.ifindex === ifindex && one.address === address);
    if (!gone) return refuse(`delete neighbour ${address} of link ${ifindex}`, "ENOENT");
    this.#space.neighbours = without(this.#space.neighbours, gone);
  }

  watch(_groups: unknown, listener: (event: NetlinkEvent) => void): () => void {
    let isWatching = true;
    const hear = (event: NetlinkEvent) => this.#parts.notifyLater(() => isWatching && listener(event));
    this.#space.listeners.add(hear);
    const stop = () => {
      isWatching = false;
      this.#space.listeners.delete(hear);
      this.#stops.delete(stop);
    };
    this.#stops.add(stop);
    return stop;
  }
}

type Place = Pick<Change<"addRoute">, "family" | "destination" | "prefixLength"> & { table: number; metric: number };

function isSamePlace(one: Place, other: Place): boolean {
  const keys = ["family", "destination", "prefixLength", "table", "metric"] as const;
  return keys.every((key) => one[key] === other[key]);
}

/** Of an IPv4 prefix. */
function hasBitsBehind(address: string, prefixLength: number): boolean {
  const number = address.split(".").reduce((sum, byte) => sum * 256 + Number(byte), 0);
  return number % 2 ** (32 - prefixLength) !== 0;
}

function familyOf(address: string): 4 | 6 {
  return address.includes(":") ? 6 : 4;
}

function without<T>(all: readonly T[], gone: T): T[] {
  return all.filter((one) => one !== gone);
}

function optional(link: MemoryLink | undefined) {
  return link && seen(link);
}

function refuse(op: string, code: keyof typeof Errno, detail?: string): never {
  throw new KernelError(op, Errno[code], detail);
}
