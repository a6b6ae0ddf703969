import {
  type BorrowedFd,
  Fd,
  type Link,
  type LinkOwner,
  type Netns,
  NotANetnsError,
  type Rtnl,
} from "../../src/kernel/index.ts";
import { type LinkSettings, linkDifferences, type SettingsDoor } from "../../src/netdev/index.ts";
import { netdevName } from "../nic/netdev-names.ts";
import type { NetdevMaker, NicFunction } from "../nic/nic.ts";
import type { LinkMaker, LinksParts, NetdevView, SeenNetdev } from "../nic/sysfs.ts";
import type { Handles } from "./handles.ts";
import { openMemoryRtnl } from "./memory-rtnl.ts";
import { keyOf, type MemoryLink, MTU, Netspace } from "./netspace.ts";

/** Namespaces and links of a node in memory: each VF with a kernel driver has a link, in the host's namespace at first. */
export class MemoryLinks implements NetdevMaker, NetdevView, LinkMaker {
  readonly hasLinks = true;
  /** A link in memory has one, its altnames. */
  readonly settings: SettingsDoor = {
    boot: "the simulated one",
    read: async ({ netns }, { index }) => altNamesOf(this.#spaceOf(netns).link(index, "read the settings")),
    restore: async ({ netns }, { index }, before) => {
      const link = this.#spaceOf(netns).link(index, "restore the settings");
      const found = linkDifferences(before, altNamesOf(link));
      link.altNames = Object.keys(before).map((setting) => setting.replace("altname ", ""));
      return { restored: found, remaining: [] };
    },
  };
  readonly host: Netspace;
  readonly #parts: LinksParts;
  readonly #handles: Handles;
  readonly #notifyLater: (notify: () => void) => void;
  readonly #spaces = new Map<string, Netspace>();

  constructor(parts: LinksParts, handles: Handles, notifyLater: (notify: () => void) => void) {
    this.#parts = parts;
    this.#handles = handles;
    this.#notifyLater = notifyLater;
    this.host = this.#makeSpace();
  }

  /** A new namespace, of which the caller owns the one handle. */
  createNetns(): Netns {
    return this.#makeSpace().open();
  }

  /** @throws {NotANetnsError} for what is none of this node's. */
  netnsOf(fd: BorrowedFd): Netns {
    const named = Fd.dupOf(fd);
    try {
      const space = this.#spaces.get(keyOf(named));
      if (!space) throw new NotANetnsError("Cannot use the received descriptor as a network namespace: it is none");
      return space.open();
    } finally {
      named.close();
    }
  }

  openRtnl(netns: Netns): Rtnl {
    return openMemoryRtnl(this.#spaceOf(netns), {
      spaceOf: (other) => this.#spaceOf(other),
      moved: (link, to) => {
        if (to === this.host) this.#parts.onReturn(link.fn, link.name);
      },
      notifyLater: this.#notifyLater,
    });
  }

  async plug(fn: NicFunction): Promise<SeenNetdev> {
    const desired = netdevName(fn);
    const name = this.host.named(desired) ? this.host.freeName("eth%d") : desired;
    const address = this.#parts.macOf(fn) ?? burntInMac(fn);
    // PFs are up, and every other VF, as an operator leaves them; the altname is udev's.
    const up = !fn.virtual || fn.virtual.index % 2 === 1;
    const settings = { up, mtu: MTU.usual, altNames: [`${desired}-by-udev`] };
    const link: MemoryLink = { fn, name, address, permanentAddress: burntInMac(fn), index: 0, ...settings };
    this.host.put(link);
    this.#parts.onMade(fn, address);
    return { ifname: name, ifindex: link.index };
  }

  async unplug(fn: NicFunction): Promise<{ readonly ifname: string | undefined }> {
    const found = this.#find(fn);
    found?.space.take(found.link);
    return { ifname: found?.space === this.host ? found.link.name : undefined };
  }

  has(fn: NicFunction): boolean {
    return this.#find(fn) !== undefined;
  }

  async seen(fn: NicFunction): Promise<SeenNetdev | undefined> {
    const found = this.#find(fn);
    return found?.space === this.host ? { ifname: found.link.name, ifindex: found.link.index } : undefined;
  }

  /** In which namespace the VF's link is. */
  whereIs(address: string): { readonly space: Netspace; readonly link: MemoryLink } | undefined {
    return this.#find({ address });
  }

  functionOf({ parentDevice }: Link): NicFunction | undefined {
    for (const { links } of this.#spaces.values()) {
      for (const { fn } of links.values()) if (fn.address === parentDevice) return fn;
    }
    return undefined;
  }

  async ownerOf(netns: Netns, { index, parentDevice }: Link): Promise<LinkOwner> {
    const link = this.#spaceOf(netns).links.get(index);
    if (!link || link.fn.address !== parentDevice)
      return { pciFunction: undefined, text: "no function of the sandbox" };
    return { pciFunction: link.fn.address, text: `PCI function ${link.fn.address}` };
  }

  #makeSpace(): Netspace {
    const space = new Netspace(this.#handles.make(), (ended) => this.#end(ended));
    this.#spaces.set(space.key, space);
    return space;
  }

  /** What stands for hardware goes to the host, under its name where that is free: default_device_exit_net (net/core/dev.c). */
  #end(space: Netspace): void {
    if (space === this.host) return;
    this.#spaces.delete(space.key);
    for (const link of [...space.links.values()]) {
      space.take(link);
      if (this.host.named(link.name)) link.name = this.host.freeName("dev%d");
      link.altNames = [];
      this.host.put(link);
      this.#parts.onReturn(link.fn, link.name);
    }
  }

  #spaceOf({ id }: Netns): Netspace {
    const space = this.#spaces.get(`${id.dev}/${id.ino}`);
    if (!space) throw new Error("Cannot find a network namespace: it is none of the simulated node's");
    return space;
  }

  #find({
    address,
  }: Pick<NicFunction, "address">): { readonly space: Netspace; readonly link: MemoryLink } | undefined {
    for (const space of this.#spaces.values()) {
      for (const link of space.links.values()) if (link.fn.address === address) return { space, link };
    }
    return undefined;
  }
}

function altNamesOf({ altNames }: MemoryLink): LinkSettings {
  return Object.fromEntries(altNames.map((name) => [`altname ${name}`, "on"]));
}

/** Local, the same at each bind, other for each VF. */
function burntInMac({ address }: NicFunction): string {
  const digits = address.replaceAll(/[:.]/g, "").slice(-7).padStart(10, "0");
  return `02:${digits.match(/../g)?.join(":")}`;
}
