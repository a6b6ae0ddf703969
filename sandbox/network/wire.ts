import { KeyedQueue } from "../../src/async/index.ts";
import { KernelError, type Link, type LinkOwner, type Netns, Rtnl } from "../../src/kernel/index.ts";
import { netdevName } from "../nic/netdev-names.ts";
import type { NetdevMaker, NicFunction } from "../nic/nic.ts";
import type { LinkMaker, LinksParts, NetdevView, SeenNetdev } from "../nic/sysfs.ts";

/** A network device of a PCI function and its other end on the wire. */
interface Port {
  readonly fn: NicFunction;
  /** Index of the other end, in the namespace of the wire. It names the port for good. */
  readonly wireIndex: number;
}

/** What is at the far end of the wire: an endpoint, another node. */
export interface Cable {
  readonly netns: Netns;
  /** Of the device there. */
  readonly name: string;
  readonly vlan: number;
}

export interface WireOptions extends LinksParts {
  readonly host: Netns;
  readonly wire: Netns;
}

/**
 * Network devices that are real: one end of a veth in the host's namespace for each PCI function with a kernel driver, the
 * other end on a bridge in a namespace of its own. There is one bridge for each VLAN, for this kernel may lack bridge VLAN
 * filtering: two PCI functions hear each other when their VLANs are the same, whichever adapter they belong to.
 */
export class Wire implements NetdevMaker, NetdevView, LinkMaker {
  readonly #options: WireOptions;
  readonly #host: Rtnl;
  readonly #wire: Rtnl;
  readonly #ports = new Map<string, Port>();
  readonly #bridges = new Map<number, Promise<number>>();
  readonly #queue = new KeyedQueue<string>();
  readonly hasLinks = true;
  readonly #unwatch: () => void;
  #made = 0;
  #isClosing = false;

  constructor(options: WireOptions) {
    this.#options = options;
    this.#host = Rtnl.open({ netns: options.host });
    this.#wire = Rtnl.open({ netns: options.wire });
    // A veth dies with the namespace of either end: a PCI function whose client's namespace died must come back.
    this.#unwatch = this.#wire.watch(["link"], (event) => {
      const gone = event.kind === "gone-link" ? event.link.index : undefined;
      if (gone !== undefined || event.kind === "lost")
        void this.#returnLink(gone).catch((error) => this.#ifOpen(error));
    });
  }

  plug(fn: NicFunction): Promise<SeenNetdev> {
    return this.#queue.run(fn.address, () => this.#make(fn, netdevName(fn)));
  }

  async #make(fn: NicFunction, desiredName: string): Promise<SeenNetdev> {
    const name = `w${this.#made++}`;
    const address = this.#options.macOf(fn) ?? burntInMac(fn);
    const ifname = await this.#createAs(desiredName, async (peerName) => {
      await this.#wire.createLink({ kind: "veth", name, peer: { name: peerName, address, netns: this.#options.host } });
    });
    const wireEnd = await this.#wire.linkByName(name);
    if (!wireEnd) throw new Error(`Cannot find ${name}, which was just made`);
    this.#ports.set(fn.address, { fn, wireIndex: wireEnd.index });
    this.#options.onMade(fn, address);
    await this.#join(wireEnd.index, this.#options.vlanOf(fn));
    await this.#wire.setLink(wireEnd.index, { up: true });
    // As an operator leaves it; the virtual ones come down and stay so until a client has them.
    if (!fn.virtual && wireEnd.peerIndex !== undefined) await this.#host.setLink(wireEnd.peerIndex, { up: true });
    return { ifname, ifindex: wireEnd.peerIndex ?? 0 };
  }

  /** As the kernel: the desired name, or else the first free ethN. */
  async #createAs(desired: string, create: (name: string) => Promise<void>): Promise<string> {
    for (const name of [desired, ...Array.from({ length: 1_000 }, (_, index) => `eth${index}`)]) {
      try {
        await create(name);
        return name;
      } catch (error) {
        if (!(error instanceof KernelError && error.code === "EEXIST")) throw error;
      }
    }
    throw new Error(`Cannot find a free name instead of ${desired}`);
  }

  unplug(fn: NicFunction): Promise<{ readonly ifname: string | undefined }> {
    return this.#queue.run(fn.address, async () => {
      const port = this.#ports.get(fn.address);
      const seen = await this.seen(fn);
      this.#ports.delete(fn.address);
      if (port) await this.#wire.deleteLink(port.wireIndex).catch(ignoreGone);
      return { ifname: seen?.ifname };
    });
  }

  has(fn: NicFunction): boolean {
    return this.#ports.has(fn.address);
  }

  /** The PCI function whose device a link is, in whatever namespace. */
  functionOf(link: Pick<Link, "kind" | "peerIndex">): NicFunction | undefined {
    if (link.kind !== "veth") return undefined;
    return [...this.#ports.values()].find(({ wireIndex }) => wireIndex === link.peerIndex)?.fn;
  }

  /** Gives the device the address that the physical function has set, where the host's namespace has it. */
  async takeMac(fn: NicFunction): Promise<void> {
    const address = this.#options.macOf(fn);
    const seen = address === undefined ? undefined : await this.seen(fn);
    if (seen && address !== undefined) await this.#host.setLink(seen.ifindex, { address }).catch(ignoreGone);
  }

  async seen(fn: NicFunction): Promise<SeenNetdev | undefined> {
    const port = this.#ports.get(fn.address);
    const wireEnd = port && (await this.#wire.linkByIndex(port.wireIndex));
    if (wireEnd?.peerIndex === undefined) return undefined;
    const link = await this.#host.linkByIndex(wireEnd.peerIndex);
    // The same number may belong to another link of the host; only the right one points back.
    if (link?.kind !== "veth" || link.peerIndex !== wireEnd.index) return undefined;
    return { ifname: link.name, ifindex: link.index };
  }

  /**
   * Which PCI function has that link, in whatever namespace it is: by both ends, which must point at each other. Their indexes alone
   * may be those of a link that another process made; the kernel's id of the namespace says the rest.
   */
  async ownerOf(netns: Netns, link: Link): Promise<LinkOwner> {
    const port = [...this.#ports.values()].find(({ wireIndex }) => wireIndex === link.peerIndex);
    const wireEnd = link.kind === "veth" && port ? await this.#wire.linkByIndex(port.wireIndex) : undefined;
    if (port && wireEnd?.peerIndex === link.index && wireEnd.peerNetnsId !== undefined) {
      const { address } = port.fn;
      const isThere = (await this.#wire.namespaceId(netns)) === wireEnd.peerNetnsId;
      if (isThere) return { pciFunction: address, text: `PCI function ${address}` };
    }
    return { pciFunction: undefined, text: `no function of the sandbox (it is a ${link.kind ?? "device"})` };
  }

  /** A cable from elsewhere into one VLAN: its other end is the device `name` in the namespace given. */
  async connect(cable: Cable): Promise<void> {
    const name = `w${this.#made++}`;
    await this.#wire.createLink({ kind: "veth", name, peer: { name: cable.name, netns: cable.netns } });
    const wireEnd = await this.#wire.linkByName(name);
    if (!wireEnd) throw new Error(`Cannot find ${name}, which was just made`);
    await this.#join(wireEnd.index, cable.vlan);
    await this.#wire.setLink(wireEnd.index, { up: true });
  }

  /** Moves the PCI function's port to the bridge of its VLAN. */
  setVlan(fn: NicFunction, vlan: number): Promise<void> {
    return this.#queue.run(fn.address, async () => {
      const port = this.#ports.get(fn.address);
      if (port) await this.#join(port.wireIndex, vlan);
    });
  }

  async #join(wireIndex: number, vlan: number): Promise<void> {
    const bridge = this.#bridges.get(vlan) ?? this.#makeBridge(`br${vlan}`);
    this.#bridges.set(vlan, bridge);
    await this.#wire.setLink(wireIndex, { master: await bridge });
  }

  async #makeBridge(name: string): Promise<number> {
    await this.#wire.createLink({ kind: "bridge", name });
    const bridge = await this.#wire.linkByName(name);
    if (!bridge) throw new Error(`Cannot find ${name}, which was just made`);
    await this.#wire.setLink(bridge.index, { up: true });
    return bridge.index;
  }

  /** Gives a PCI function whose device died with its namespace a new one, as a real PCI function falls back to the host. */
  async #returnLink(gone: number | undefined): Promise<void> {
    for (const port of [...this.#ports.values()]) {
      if (gone !== undefined && port.wireIndex !== gone) continue;
      await this.#queue.run(port.fn.address, async () => {
        if (this.#isClosing || this.#ports.get(port.fn.address) !== port) return;
        if (await this.#wire.linkByIndex(port.wireIndex)) return;
        // The kernel keeps the last name where it is free, and the pod's name is not known here: it is taken as in use.
        const { ifname } = await this.#make(port.fn, `dev${port.wireIndex + 1_000}`);
        this.#options.onReturn(port.fn, ifname);
      });
    }
  }

  /** The sockets may close in the middle of the work. */
  #ifOpen(error: unknown): void {
    if (!this.#isClosing) throw error;
  }

  /**
   * Lets go of the links. They die with the namespace of the wire, in the kernel's own time; where the host's namespace
   * lives on they are taken away before this returns.
   */
  async close({ hostLivesOn }: { readonly hostLivesOn: boolean }): Promise<void> {
    this.#isClosing = true;
    this.#unwatch();
    const ports = hostLivesOn ? [...this.#ports.values()] : [];
    this.#ports.clear();
    await Promise.all(ports.map(({ wireIndex }) => this.#wire.deleteLink(wireIndex).catch(ignoreGone)));
    this.#wire.close();
    this.#host.close();
  }
}

/** The address "burnt into" a PCI function: local, the same at each bind, other for each PCI function. */
function burntInMac({ address }: NicFunction): string {
  const digits = address.replaceAll(/[:.]/g, "").slice(-7).padStart(10, "0");
  return `02:${digits.match(/../g)?.join(":")}`;
}

function ignoreGone(error: unknown): void {
  if (!(error instanceof KernelError && error.code === "ENODEV")) throw error;
}
