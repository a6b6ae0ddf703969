import type { HostFiles, KernelError, Link, ListOptions, Netns, Rtnl } from "../kernel/index.ts";
import type { PciAddress } from "./address.ts";
import { type HostNetwork, hostUseOf, type NetdevUse } from "./host-use.ts";
import { ownNetdevs } from "./read-sysfs.ts";

/** A device can be renamed between the read of the files and the read of the links. */
const TRIES = 3;

/** What was seen of PCI functions. */
export interface HostUseSeen {
  /** A PCI function without a network device in this namespace is left out. */
  readonly netdevs: ReadonlyMap<PciAddress, readonly NetdevUse[]>;
  /** Why the host may use them for more than was seen, or have network devices of those that are left out. */
  readonly doubt: KernelError | undefined;
}

type Doubt = Pick<HostUseSeen, "doubt">;
type Dump = Pick<HostNetwork, "links" | "addresses"> & Doubt;

/** Of the host. */
interface HostUseReaderParts {
  readonly devices: HostFiles;
  readonly netns: Netns;
  openRtnl(netns: Netns): Rtnl;
}

/**
 * Observes which PCI functions the host uses: the names of their network devices in sysfs, then one dump of links and one of
 * addresses for all of them, and one of default routes where one of them is up.
 */
export class HostUseReader {
  readonly #devices: HostFiles;
  readonly #rtnl: Rtnl;
  /** The dump that is requested and not begun: a caller that comes by then shares it. */
  #next: { readonly names: Set<string>; readonly dump: Promise<Dump> } | undefined;
  #last: Promise<unknown> = Promise.resolve();

  /** @throws {KernelError} when the kernel refuses a socket. */
  constructor({ devices, netns, openRtnl }: HostUseReaderParts) {
    this.#devices = devices;
    this.#rtnl = openRtnl(netns);
  }

  /**
   * The network devices of the PCI functions as they are now: nothing in the answer is older than the call.
   * @throws {KernelError}
   */
  async observe(addresses: readonly PciAddress[]): Promise<HostUseSeen> {
    for (let left = TRIES; ; left -= 1) {
      const names = new Map<PciAddress, readonly string[]>();
      await Promise.all(addresses.map(async (one) => void names.set(one, await ownNetdevs(this.#devices, one))));
      const desired = new Set([...names.values()].flat());
      if (desired.size === 0) return { netdevs: new Map(), doubt: undefined };
      const dump = await this.#dump(desired);
      const found = new Map(dump.links.filter(({ name }) => desired.has(name)).map((link) => [link.name, link]));
      const { doubt, ...network } = await this.#whole(dump, [...found.values()]);
      if ((found.size < desired.size || doubt) && left > 1) continue;
      return { netdevs: usesOf(names, found, network), doubt };
    }
  }

  close(): void {
    this.#rtnl.close();
  }

  #dump(desired: ReadonlySet<string>): Promise<Dump> {
    if (!this.#next) {
      const names = new Set<string>();
      const dump = this.#last.then(async () => {
        this.#next = undefined;
        const { noting, doubts } = notedDoubts();
        const links = await this.#rtnl.linksNamedOrAbove(names, noting);
        const addresses = await this.#rtnl.addresses(0, undefined, noting);
        return { links, addresses, doubt: doubts[0] };
      });
      this.#next = { names, dump };
      this.#last = dump.catch(() => {});
    }
    for (const name of desired) this.#next.names.add(name);
    return this.#next.dump;
  }

  async #whole({ links, addresses, doubt }: Dump, own: readonly Link[]): Promise<HostNetwork & Doubt> {
    const { noting, doubts } = notedDoubts();
    const masters = new Set(own.flatMap(({ master }) => master ?? []));
    const above = await Promise.all([...masters].map((index) => this.#rtnl.linkByIndex(index)));
    const defaultRoutes = await this.#defaultRoutes(own, noting);
    const all = [...links, ...above.filter((link) => link !== undefined)];
    return { links: all, addresses, defaultRoutes, doubt: doubt ?? doubts[0] };
  }

  /** A link that is down has none: the kernel takes its routes away (fib_disable_ip, rt6_disable_ip). */
  async #defaultRoutes(links: readonly Link[], noting: ListOptions): Promise<HostNetwork["defaultRoutes"]> {
    const open = links.filter(({ up }) => up);
    if (open.length === 0) return [];
    return await this.#rtnl.defaultRoutes(open.length === 1 ? open[0]?.index : undefined, noting);
  }
}

function notedDoubts() {
  const doubts: KernelError[] = [];
  const noting: ListOptions = { onDoubt: (doubt) => void doubts.push(doubt) };
  return { noting, doubts };
}

function usesOf(
  names: ReadonlyMap<PciAddress, readonly string[]>,
  found: ReadonlyMap<string, Link>,
  network: HostNetwork,
): ReadonlyMap<PciAddress, readonly NetdevUse[]> {
  const uses = new Map<PciAddress, readonly NetdevUse[]>();
  for (const [address, own] of names) {
    const links = own.flatMap((name) => found.get(name) ?? []);
    if (links.length === 0) continue;
    const entries = links.map(({ name: ifname, index: ifindex }) => {
      return { ifname, ifindex, uses: hostUseOf(network, ifindex) };
    });
    uses.set(address, entries);
  }
  return uses;
}
