import type { Link, LinkOwner, Netns } from "../../src/kernel/index.ts";
import type { NetdevMaker, NicFunction } from "./nic.ts";
import type { LinkMaker, NetdevView, SeenNetdev } from "./sysfs.ts";

/** Network devices that are only names: for tests without privileges. All of them stay in the host's namespace. */
export class NamedNetdevs implements NetdevMaker, NetdevView, LinkMaker {
  readonly #seen = new Map<string, SeenNetdev>();
  readonly hasLinks = false;
  #nextIndex = 2;

  async plug(fn: NicFunction): Promise<SeenNetdev> {
    const netdev = { ifname: netdevName(fn), ifindex: this.#nextIndex++ };
    this.#seen.set(fn.address, netdev);
    return netdev;
  }

  async unplug(fn: NicFunction): Promise<{ readonly ifname: string | undefined }> {
    const seen = this.#seen.get(fn.address);
    this.#seen.delete(fn.address);
    return { ifname: seen?.ifname };
  }

  has(fn: NicFunction): boolean {
    return this.#seen.has(fn.address);
  }

  functionOf(_link: Link): undefined {
    return undefined;
  }

  /** Whatever link has an index of theirs is another's. */
  async ownerOf(_netns: Netns, link: Link): Promise<LinkOwner> {
    return { pciFunction: undefined, text: `no function of the sandbox (it is a ${link.kind ?? "device"})` };
  }

  async seen(fn: NicFunction): Promise<SeenNetdev | undefined> {
    return this.#seen.get(fn.address);
  }
}

/** The name that udev would give: "enp1s0f0" for a physical function, "enp1s0f0v3" for its fourth virtual one. */
export function netdevName({ address, virtual }: NicFunction): string {
  const [, bus = "0", slot = "0", fn = "0"] =
    /:([0-9a-f]+):([0-9a-f]+)\.(\d)$/.exec(virtual?.pf.address ?? address) ?? [];
  const base = `enp${Number.parseInt(bus, 16)}s${Number.parseInt(slot, 16)}f${fn}`;
  return virtual ? `${base}v${virtual.index}` : base;
}
