import type { HostFiles } from "../kernel/index.ts";
import { type Link, type Netns, Rtnl } from "../kernel/index.ts";
import type { PciAddress } from "./address.ts";
import { type HostNetwork, type HostUse, hostUseOf } from "./host-use.ts";
import { ownNetdevs } from "./pci-files.ts";

/** A network device of a function in the host's namespace, and what the host uses it for: nothing where `uses` is empty. */
export interface NetdevUse {
  readonly ifname: string;
  readonly ifindex: number;
  readonly uses: readonly HostUse[];
}

/** A device can be renamed between the look at the files and the look at the links. */
const TRIES = 3;

/**
 * Observes which functions the host uses: the names of their network devices in sysfs, then one dump of links and one of
 * addresses for all of them, and of default routes where something is up of which nothing else is known.
 */
export class HostUseReader {
  readonly #devices: HostFiles;
  readonly #rtnl: Rtnl;
  /** The dumps that have been asked for and not begun: who comes by then shares them. */
  #next: Promise<Pick<HostNetwork, "links" | "addresses">> | undefined;
  #last: Promise<unknown> = Promise.resolve();

  /** @throws {KernelError} when the kernel refuses a socket. */
  constructor({ devices, netns }: { readonly devices: HostFiles; readonly netns: Netns }) {
    this.#devices = devices;
    this.#rtnl = Rtnl.open({ netns });
  }

  /**
   * The network devices of the functions as they are now: nothing in the answer is older than the call. A function without any
   * in this namespace is left out.
   * @throws {KernelError}
   */
  async observe(addresses: readonly PciAddress[]): Promise<ReadonlyMap<PciAddress, readonly NetdevUse[]>> {
    for (let left = TRIES; ; left -= 1) {
      const names = new Map<PciAddress, readonly string[]>();
      await Promise.all(addresses.map(async (one) => void names.set(one, await ownNetdevs(this.#devices, one))));
      const wanted = new Set([...names.values()].flat());
      if (wanted.size === 0) return new Map();
      const network = await this.#dump();
      const found = new Map(network.links.filter(({ name }) => wanted.has(name)).map((link) => [link.name, link]));
      if (found.size < wanted.size && left > 1) continue;
      const whole = { ...network, defaultRoutes: await this.#defaultRoutes(network, [...found.values()]) };
      return usesOf(names, found, whole);
    }
  }

  close(): void {
    this.#rtnl.close();
  }

  #dump(): Promise<Pick<HostNetwork, "links" | "addresses">> {
    this.#next ??= this.#last.then(async () => {
      this.#next = undefined;
      return { links: await this.#rtnl.links(), addresses: await this.#rtnl.addresses() };
    });
    this.#last = this.#next.catch(() => {});
    return this.#next;
  }

  /** A link that is down has none: the kernel takes its routes away (fib_disable_ip, rt6_disable_ip). */
  async #defaultRoutes(network: Pick<HostNetwork, "links" | "addresses">, links: readonly Link[]) {
    const known = { ...network, defaultRoutes: [] };
    const open = links.filter(({ up, index }) => up && hostUseOf(known, index).length === 0);
    if (open.length === 0) return [];
    return await this.#rtnl.defaultRoutes(open.length === 1 ? open[0]?.index : undefined);
  }
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
