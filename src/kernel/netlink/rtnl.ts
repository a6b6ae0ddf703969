import { KernelError } from "../error.ts";
import type { Netns } from "../netns.ts";
import { type Address, decodeAddress, encodeAddress, encodeDumpAddresses, type NewAddress } from "./address.ts";
import { bothFamilies } from "./both-families.ts";
import { Conversation, type ListOptions, type NetlinkSocket } from "./conversation.ts";
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
import type { NetlinkMessage } from "./message.ts";
import { decodeNamespaceId, encodeGetNamespaceId } from "./namespace-id.ts";
import {
  decodeNeighbour,
  encodeDumpNeighbours,
  encodeNeighbour,
  type Neighbour,
  type NewNeighbour,
} from "./neighbour.ts";
import { openNetlinkSocket } from "./open-socket.ts";
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

/** What to change of a link. Names of the other namespace and altnames go with it in this order: move, rename, the rest. */
export interface SetLink extends Omit<LinkChange, "netnsFd"> {
  /** Moves it there, down, under `name`. */
  readonly netns?: Netns;
  readonly addAltNames?: readonly string[];
  readonly removeAltNames?: readonly string[];
}

/** A veth pair or a bridge to be made; the ends may be put in other namespaces at once. */
interface CreateLink extends Omit<NewLink, "netnsFd" | "peer"> {
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
  readonly #kernel: Conversation;
  readonly #netns: Netns | undefined;

  private constructor(socket: NetlinkSocket, netns: Netns | undefined) {
    this.#kernel = new Conversation(socket);
    this.#netns = netns;
  }

  /** Requests so far of every socket of this process. */
  static get totals(): Readonly<typeof Conversation.totals> {
    return Conversation.totals;
  }

  /** A socket in the namespace, which may be closed afterwards, unless `watch` is used. */
  static open({ netns }: { readonly netns: Netns }): Rtnl {
    return new Rtnl(openNetlinkSocket(netns), netns);
  }

  /** Speaks to whatever answers at the other end of the socket. */
  static over(socket: NetlinkSocket): Rtnl {
    return new Rtnl(socket, undefined);
  }

  close(): void {
    this.#kernel.close();
  }

  async links(): Promise<Link[]> {
    return this.#kernel.list(encodeDumpLinks(), listingOfLinks);
  }

  /** Those of these names, and all that lie on another link of this namespace (VLANs, macvlans, tunnels, the ends of pairs). */
  async linksNamedOrAbove(names: ReadonlySet<string>, options?: ListOptions): Promise<Link[]> {
    const keep = (message: NetlinkMessage) => isNamedOrAbove(message, names);
    return this.#kernel.list(encodeDumpLinks(), { ...listingOfLinks, ...options, keep });
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
    const request = encodeGetNamespaceId(netns.fd.number);
    return this.#kernel.one(request, "look up the id of a network namespace", decodeNamespaceId);
  }

  async setLink(index: number, change: SetLink): Promise<void> {
    const { netns, addAltNames = [], removeAltNames = [], ...rest } = change;
    for (const name of removeAltNames) {
      await this.#kernel.write(encodeAltName("remove", index, name), `take altname "${name}" from link ${index}`);
    }
    const what = { ...rest, ...(netns && { netnsFd: netns.fd.number }) };
    if (Object.keys(what).length > 0) {
      await this.#kernel.write(encodeSetLink(index, what), `set ${Object.keys(change).join(", ")} of link ${index}`);
    }
    for (const name of addAltNames) {
      await this.#kernel.write(encodeAltName("add", index, name), `give altname "${name}" to link ${index}`);
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
    return this.#kernel.write(request, `make ${link.kind} "${link.name}"`);
  }

  deleteLink(index: number): Promise<void> {
    return this.#kernel.write(encodeDeleteLink(index), `delete link ${index}`);
  }

  /** How many VFs a PF has. */
  async vfCount(pfIndex: number): Promise<number> {
    const request = encodeGetLink({ index: pfIndex }, true);
    return (await this.#kernel.one(request, `count the VFs of link ${pfIndex}`, decodeVfCount)) ?? 0;
  }

  /** The VFs of a PF that it reports, or only the requested one. Empty also for a link that is no PF, or has no VFs. */
  async vfInfos(pfIndex: number, only?: number): Promise<VfInfo[]> {
    const decode = (message: NetlinkMessage) => decodeVfInfos(message, only);
    const request = encodeGetLink({ index: pfIndex }, true);
    return (await this.#kernel.one(request, `read the VFs of link ${pfIndex}`, decode)) ?? [];
  }

  setVf(pfIndex: number, vf: number, change: VfChange): Promise<void> {
    const what = `set ${Object.keys(change).join(", ")} of VF ${vf}`;
    return this.#kernel.write(encodeSetVf(pfIndex, vf, change), `${what} through link ${pfIndex}`);
  }

  /** Of one link, or of all; only those that concern the caller. */
  async addresses(ifindex = 0, concerns = (_: Address): boolean => true, options?: ListOptions): Promise<Address[]> {
    return this.#kernel.list(encodeDumpAddresses(ifindex), {
      ...options,
      op: "list the addresses",
      decode: decodeAddress,
      // A kernel before 4.20 does not filter.
      concerns: (address) => (ifindex === 0 || address.ifindex === ifindex) && concerns(address),
    });
  }

  addAddress(address: NewAddress): Promise<void> {
    return this.#kernel.write(encodeAddress("add", address), `add ${addressText(address)}`);
  }

  deleteAddress(address: NewAddress): Promise<void> {
    return this.#kernel.write(encodeAddress("delete", address), `delete ${addressText(address)}`);
  }

  /** All tables, both families; only those that concern the caller: a namespace may have a million of others. */
  async routes(concerns?: (route: Route) => boolean, options?: ListOptions): Promise<Route[]> {
    return bothFamilies((family) =>
      this.#kernel.list(encodeDumpRoutes(family), {
        ...options,
        op: `list the IPv${family} routes`,
        decode: decodeRoute,
        concerns,
      }),
    );
  }

  /** Of all tables and both families; of one link only, unless its index is left out. */
  async defaultRoutes(ifindex = 0, options?: ListOptions): Promise<DefaultRoute[]> {
    const found = await bothFamilies(async (family) => {
      const op = `list the IPv${family} default routes`;
      const listing = { ...options, op, decode: decodeDefaultRoute, keep: isDefaultRoute };
      return await this.#kernel.list(encodeDumpUnicastRoutes(family, ifindex), listing).catch((error: unknown) => {
        if (ifindex !== 0 && error instanceof KernelError && error.code === "ENODEV") return []; // it has gone
        throw error;
      });
    });
    return ifindex === 0 ? found : found.filter(({ ifindexes }) => ifindexes.includes(ifindex));
  }

  addRoute(route: NewRoute): Promise<void> {
    return this.#kernel.write(encodeRoute("add", route), `add ${routeText(route)}`);
  }

  deleteRoute(route: NewRoute): Promise<void> {
    return this.#kernel.write(encodeRoute("delete", route), `delete ${routeText(route)}`);
  }

  /** Both families, in the order in which the kernel tries them; only those that concern the caller. */
  async rules(concerns?: (rule: Rule) => boolean, options?: ListOptions): Promise<Rule[]> {
    return bothFamilies((family) =>
      this.#kernel.list(encodeDumpRules(family), {
        ...options,
        op: `list the IPv${family} rules`,
        decode: decodeRule,
        concerns,
      }),
    );
  }

  addRule(rule: NewRule): Promise<void> {
    return this.#kernel.write(encodeRule("add", rule), `add the IPv${rule.family} rule to table ${rule.table}`);
  }

  deleteRule(rule: NewRule): Promise<void> {
    return this.#kernel.write(encodeRule("delete", rule), `delete the IPv${rule.family} rule to table ${rule.table}`);
  }

  /**
   * Of one link, or of all; without those that say "no answer from here" (IPv6 multicast and the like). Only those that concern the
   * caller: a router's pod has learned thousands.
   */
  async neighbours(
    ifindex = 0,
    concerns = (_: Neighbour): boolean => true,
    options?: ListOptions,
  ): Promise<Neighbour[]> {
    return this.#kernel.list(encodeDumpNeighbours(ifindex), {
      ...options,
      op: "list the neighbours",
      decode: decodeNeighbour,
      concerns: (neighbour) => (ifindex === 0 || neighbour.ifindex === ifindex) && concerns(neighbour),
    });
  }

  addNeighbour(neighbour: NewNeighbour): Promise<void> {
    return this.#kernel.write(encodeNeighbour("add", neighbour), `add ${neighbourText(neighbour)}`);
  }

  deleteNeighbour(neighbour: Pick<NewNeighbour, "ifindex" | "address">): Promise<void> {
    return this.#kernel.write(encodeNeighbour("delete", neighbour), `delete ${neighbourText(neighbour)}`);
  }

  /** Reports changes until the function it returns is called. Uses a socket of its own, which one that was given does not have. */
  watch(groups: readonly NetlinkGroup[], listener: (event: NetlinkEvent) => void): () => void {
    if (!this.#netns) throw new Error("a socket that was given has no namespace that could be watched");
    return watchGroups(this.#netns, groups, listener);
  }

  async #link(by: { readonly name: string } | { readonly index: number }, op: string): Promise<Link | undefined> {
    try {
      return await this.#kernel.one(encodeGetLink(by), op, decodeLink);
    } catch (error) {
      if (error instanceof KernelError && error.code === "ENODEV") return undefined;
      throw error;
    }
  }
}

const listingOfLinks = { op: "list the links", decode: decodeLink, keyOf: ({ index }: Link) => index };

function addressText({ address, prefixLength, ifindex }: NewAddress): string {
  return `address ${address}/${prefixLength} of link ${ifindex}`;
}

function neighbourText({ address, ifindex }: Pick<NewNeighbour, "address" | "ifindex">): string {
  return `neighbour ${address} of link ${ifindex}`;
}

function routeText(route: NewRoute): string {
  const via = route.gateway === undefined ? "" : ` via ${route.gateway}`;
  return `route ${route.destination}/${route.prefixLength}${via} on link ${route.ifindex} in table ${route.table ?? 254}`;
}
