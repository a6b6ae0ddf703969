import { Errno } from "../errno.ts";
import { KernelError } from "../error.ts";
import type { Netns } from "../netns.ts";
import {
  type Address,
  decodeAddress,
  encodeAddress,
  encodeDumpAddresses,
  type IpFamily,
  type NewAddress,
} from "./address.ts";
import { Conversation, type NetlinkPipe, type RequestOptions } from "./conversation.ts";
import {
  decodeLink,
  encodeAltName,
  encodeDeleteLink,
  encodeDumpLinks,
  encodeGetLink,
  encodeNewLink,
  encodeSetLink,
  isNamedOrAbove,
  type Link,
  type LinkChange,
  type NewLink,
} from "./link.ts";
import type { NetlinkMessage, NetlinkRequest } from "./message.ts";
import { decodeNamespaceId, encodeGetNamespaceId } from "./namespace-id.ts";
import {
  decodeNeighbour,
  encodeDumpNeighbours,
  encodeNeighbour,
  type Neighbour,
  type NewNeighbour,
} from "./neighbour.ts";
import { openPipe } from "./pipe.ts";
import {
  type DefaultRoute,
  decodeDefaultRoute,
  decodeRoute,
  encodeDumpRoutes,
  encodeDumpUnicastRoutes,
  encodeRoute,
  isDefaultRoute,
  type NewRoute,
  type Route,
} from "./route.ts";
import { decodeRule, encodeDumpRules, encodeRule, type NewRule, type Rule } from "./rule.ts";
import { decodeVfCount, decodeVfInfos, encodeSetVf, type VfChange, type VfInfo } from "./virtual-function.ts";
import { type NetlinkEvent, type NetlinkGroup, watchGroups } from "./watch.ts";

const NO_SUCH_FAMILY: readonly number[] = [Errno.EAFNOSUPPORT, Errno.EOPNOTSUPP];

/** What to change of a link. Names of the other namespace and altnames go with it in this order: move, rename, the rest. */
export interface SetLink extends Omit<LinkChange, "netnsFd"> {
  /** Moves it there, down, under `name`. */
  readonly netns?: Netns;
  readonly addAltNames?: readonly string[];
  readonly removeAltNames?: readonly string[];
}

/** A veth pair or a bridge to be made; the ends may be put in other namespaces at once. */
export interface CreateLink extends Omit<NewLink, "netnsFd" | "peer"> {
  readonly netns?: Netns;
  readonly peer?: Omit<NonNullable<NewLink["peer"]>, "netnsFd"> & { readonly netns?: Netns };
}

/** Opens a socket in a namespace; closed by who opens it. */
export type OpenRtnl = (netns: Netns) => Rtnl;

/**
 * The links, addresses, routes, rules and neighbours of one network namespace, over one socket that stays in it.
 * Every method answers or throws KernelError, with the kernel's own words in `detail`. Changes want CAP_NET_ADMIN over
 * the namespace.
 */
export class Rtnl {
  /** Requests so far of every socket of this process. */
  static readonly totals = { reads: 0, writes: 0 };
  /** Requests so far. */
  readonly counts = { reads: 0, writes: 0 };
  readonly #conversation: Conversation;
  readonly #netns: Netns | undefined;

  private constructor(pipe: NetlinkPipe, netns: Netns | undefined) {
    this.#conversation = new Conversation(pipe);
    this.#netns = netns;
  }

  /** A socket in the namespace given (which may be closed afterwards, unless `watch` is used), or in our own. */
  static open(options: { readonly netns?: Netns } = {}): Rtnl {
    return new Rtnl(openPipe(options.netns), options.netns);
  }

  /** Speaks to whatever answers at the other end of the pipe. */
  static over(pipe: NetlinkPipe): Rtnl {
    return new Rtnl(pipe, undefined);
  }

  close(): void {
    this.#conversation.close();
  }

  async links(): Promise<Link[]> {
    return this.#list(encodeDumpLinks(), "list the links", { decode: decodeLink });
  }

  /** Those of these names, and all that lie on another link of this namespace (VLANs, macvlans, tunnels, the ends of pairs). */
  async linksNamedOrAbove(names: ReadonlySet<string>): Promise<Link[]> {
    const op = "list the links";
    const messages = await this.#read(encodeDumpLinks(), op, (message) => isNamedOrAbove(message, names));
    return decoded(op, () => messages.map(decodeLink));
  }

  /** Also finds a link by one of its alternative names. */
  linkByName(name: string): Promise<Link | undefined> {
    return this.#link({ name }, `look up link "${name}"`);
  }

  linkByIndex(index: number): Promise<Link | undefined> {
    return this.#link({ index }, `look up link ${index}`);
  }

  /** The id by which this namespace's links name that one (`peerNetnsId`); undefined where none of them has to. */
  async namespaceId(netns: Netns): Promise<number | undefined> {
    const op = "look up the id of a network namespace";
    const [message] = await this.#read(encodeGetNamespaceId(netns.fd.number), op);
    return message && decoded(op, () => decodeNamespaceId(message));
  }

  async setLink(index: number, change: SetLink): Promise<void> {
    const { netns, addAltNames = [], removeAltNames = [], ...rest } = change;
    for (const name of removeAltNames) {
      await this.#write(encodeAltName("remove", index, name), { op: `take altname "${name}" from link ${index}` });
    }
    const what = { ...rest, ...(netns && { netnsFd: netns.fd.number }) };
    if (Object.keys(what).length > 0) {
      const op = `set ${Object.keys(change).join(", ")} of link ${index}`;
      await this.#write(encodeSetLink(index, what), { op });
    }
    for (const name of addAltNames) {
      await this.#write(encodeAltName("add", index, name), { op: `give altname "${name}" to link ${index}` });
    }
  }

  createLink(link: CreateLink): Promise<void> {
    const { netns, peer, ...rest } = link;
    const { netns: peerNetns, ...peerRest } = peer ?? { name: "" };
    const request = encodeNewLink({
      ...rest,
      ...(netns && { netnsFd: netns.fd.number }),
      ...(peer && { peer: { ...peerRest, ...(peerNetns && { netnsFd: peerNetns.fd.number }) } }),
    });
    return this.#write(request, { op: `make ${link.kind} "${link.name}"` });
  }

  deleteLink(index: number): Promise<void> {
    return this.#write(encodeDeleteLink(index), { op: `delete link ${index}` });
  }

  /** How many VFs a PF has. */
  async vfCount(pfIndex: number): Promise<number> {
    const op = `count the VFs of link ${pfIndex}`;
    const [message] = await this.#read(encodeGetLink({ index: pfIndex }, true), op);
    return message ? decoded(op, () => decodeVfCount(message)) : 0;
  }

  /** The VFs of a PF that it tells of, or only the one asked for. Empty also for a link that is no PF, or has no VFs. */
  async vfInfos(pfIndex: number, only?: number): Promise<VfInfo[]> {
    const op = `read the VFs of link ${pfIndex}`;
    const answer = await this.#read(encodeGetLink({ index: pfIndex }, true), op);
    return answer.flatMap((message) => decoded(op, () => decodeVfInfos(message, only)));
  }

  setVf(pfIndex: number, vf: number, change: VfChange): Promise<void> {
    const op = `set ${Object.keys(change).join(", ")} of VF ${vf} through link ${pfIndex}`;
    return this.#write(encodeSetVf(pfIndex, vf, change), { op });
  }

  /** Of one link, or of all. */
  async addresses(ifindex = 0): Promise<Address[]> {
    const found = await this.#list(encodeDumpAddresses(ifindex), "list the addresses", { decode: decodeAddress });
    // A kernel before 4.20 does not filter.
    return ifindex === 0 ? found : found.filter((address) => address.ifindex === ifindex);
  }

  addAddress(address: NewAddress): Promise<void> {
    const op = `add address ${address.address}/${address.prefixLength} to link ${address.ifindex}`;
    return this.#write(encodeAddress("add", address), { op });
  }

  deleteAddress(address: NewAddress): Promise<void> {
    const op = `delete address ${address.address}/${address.prefixLength} of link ${address.ifindex}`;
    return this.#write(encodeAddress("delete", address), { op });
  }

  /** All tables, both families; only those that concern whoever asks: a namespace may have a million of others. */
  async routes(concerns?: (route: Route) => boolean): Promise<Route[]> {
    return this.#bothFamilies((family) =>
      this.#list(encodeDumpRoutes(family), `list the IPv${family} routes`, { decode: decodeRoute, concerns }),
    );
  }

  /** Of all tables and both families; of one link only, unless its index is left out. */
  async defaultRoutes(ifindex = 0): Promise<DefaultRoute[]> {
    const found = await this.#bothFamilies(async (family) => {
      const op = `list the IPv${family} default routes`;
      const dump = this.#read(encodeDumpUnicastRoutes(family, ifindex), op, isDefaultRoute);
      const messages = await dump.catch((error: unknown) => {
        if (ifindex !== 0 && error instanceof KernelError && error.code === "ENODEV") return []; // it has gone
        throw error;
      });
      return decoded(op, () => messages.map(decodeDefaultRoute).filter((route) => route !== undefined));
    });
    return ifindex === 0 ? found : found.filter(({ ifindexes }) => ifindexes.includes(ifindex));
  }

  addRoute(route: NewRoute): Promise<void> {
    return this.#write(encodeRoute("add", route), { op: `add ${routeText(route)}` });
  }

  deleteRoute(route: NewRoute): Promise<void> {
    return this.#write(encodeRoute("delete", route), { op: `delete ${routeText(route)}` });
  }

  /** Both families, in the order they are asked; only those that concern whoever asks. */
  async rules(concerns?: (rule: Rule) => boolean): Promise<Rule[]> {
    return this.#bothFamilies((family) =>
      this.#list(encodeDumpRules(family), `list the IPv${family} rules`, { decode: decodeRule, concerns }),
    );
  }

  addRule(rule: NewRule): Promise<void> {
    return this.#write(encodeRule("add", rule), { op: `add the IPv${rule.family} rule to table ${rule.table}` });
  }

  deleteRule(rule: NewRule): Promise<void> {
    return this.#write(encodeRule("delete", rule), { op: `delete the IPv${rule.family} rule to table ${rule.table}` });
  }

  /** Of one link, or of all; without those that stand for "nobody answers here" (IPv6 multicast and the like). */
  async neighbours(ifindex = 0): Promise<Neighbour[]> {
    const concerns = (neighbour: Neighbour) => ifindex === 0 || neighbour.ifindex === ifindex;
    return this.#list(encodeDumpNeighbours(), "list the neighbours", { decode: decodeNeighbour, concerns });
  }

  addNeighbour(neighbour: NewNeighbour): Promise<void> {
    const op = `add neighbour ${neighbour.address} to link ${neighbour.ifindex}`;
    return this.#write(encodeNeighbour("add", neighbour), { op });
  }

  deleteNeighbour(neighbour: Pick<NewNeighbour, "ifindex" | "address">): Promise<void> {
    const op = `delete neighbour ${neighbour.address} of link ${neighbour.ifindex}`;
    return this.#write(encodeNeighbour("delete", neighbour), { op });
  }

  /** Tells of changes until the function it returns is called. Uses a socket of its own. */
  watch(groups: readonly NetlinkGroup[], listener: (event: NetlinkEvent) => void): () => void {
    return watchGroups(this.#netns, groups, listener);
  }

  async #link(by: { readonly name: string } | { readonly index: number }, op: string): Promise<Link | undefined> {
    try {
      const [message] = await this.#read(encodeGetLink(by), op);
      return message && decoded(op, () => decodeLink(message));
    } catch (error) {
      if (error instanceof KernelError && error.code === "ENODEV") return undefined;
      throw error;
    }
  }

  async #list<T>(request: NetlinkRequest, op: string, { decode, concerns }: Listing<T>): Promise<T[]> {
    // Decoded as they come, a piece of the dump at a time: what concerns nobody is neither kept nor waited with.
    const keep = (message: NetlinkMessage) => {
      const found = decoded(op, () => decode(message));
      return found !== undefined && (concerns?.(found) ?? true);
    };
    const messages = await this.#read(request, op, concerns && keep);
    return decoded(op, () => messages.map(decode).filter((found) => found !== undefined));
  }

  /** A kernel without IPv6 refuses the question, or answers it with all it has, which is IPv4. */
  async #bothFamilies<T extends { readonly family: IpFamily }>(list: (family: IpFamily) => Promise<T[]>): Promise<T[]> {
    const v4 = await list(4);
    try {
      return [...v4, ...(await list(6)).filter((entry) => entry.family === 6)];
    } catch (error) {
      const isMissing = error instanceof KernelError && NO_SUCH_FAMILY.includes(error.errno);
      if (isMissing) return v4;
      throw error;
    }
  }

  #read(request: NetlinkRequest, op: string, keep?: RequestOptions["keep"]): Promise<NetlinkMessage[]> {
    this.counts.reads++;
    Rtnl.totals.reads++;
    return this.#conversation.request(request, { op, ...(keep && { keep }) });
  }

  async #write(request: NetlinkRequest, options: RequestOptions): Promise<void> {
    this.counts.writes++;
    Rtnl.totals.writes++;
    await this.#conversation.request(request, options);
  }
}

interface Listing<T> {
  readonly decode: (message: NetlinkMessage) => T | undefined;
  /** All do unless told. Asked again of the same where changes have cut a dump. */
  readonly concerns?: ((entry: T) => boolean) | undefined;
}

function decoded<T>(op: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (error instanceof RangeError) throw new KernelError(op, Errno.EBADMSG, error.message);
    throw error;
  }
}

function routeText(route: NewRoute): string {
  const via = route.gateway === undefined ? "" : ` via ${route.gateway}`;
  return `route ${route.destination}/${route.prefixLength}${via} on link ${route.ifindex} in table ${route.table ?? 254}`;
}
