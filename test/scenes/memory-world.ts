// A VF's link between a host and a pod in memory, whose every change is a step: a test sees their order, and answers at one as a driver may.

import { Handles } from "../../sandbox/simulation/handles.ts";
import { MemoryLinks } from "../../sandbox/simulation/memory-links.ts";
import { VirtualClock } from "../../src/async/testing/virtual-clock.ts";
import { KernelError, type Link, type LinkPlace, type Netns, type Rtnl } from "../../src/kernel/index.ts";
import {
  type AttachmentState,
  type AttachOptions,
  desiredNetdev,
  HostLinks,
  NO_MAC,
  type PfPort,
  type RequestedNetdev,
  type VfLink,
  type VfSettings,
} from "../../src/netdev/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";

export const TEMPORARY = "nsm-abababab";
const VF = { address: "0000:01:10.0", virtual: undefined, iommuGroup: 1, numaNode: 0, override: undefined, inode: 1n };
const VF_DRIVER = { nativeDriver: "igbvf", driver: "igbvf" };
const CHANGES = [
  ...(["setLink", "deleteLink", "addAddress", "deleteAddress", "addRoute", "deleteRoute"] as const),
  ...(["addRule", "deleteRule", "addNeighbour", "deleteNeighbour"] as const),
];

type Place = "host" | "pod";

/** What a test may change, and what was done. */
export class MemoryWorld {
  readonly #handles = new Handles();
  readonly #memory: MemoryLinks;
  readonly #opened: { close(): void }[] = [];
  readonly clock = new VirtualClock();
  readonly recorded = recordingLog();
  readonly steps: string[] = [];
  readonly states: AttachmentState[] = [];
  readonly host: LinkPlace;
  readonly pod: LinkPlace;
  readonly links: HostLinks;
  /** What the PF names of the VF; a link that chooses an address changes none of it. */
  pf: VfSettings = { mac: NO_MAC, vlan: 0 };
  /** Called before each step, which does not happen when it throws. */
  onStep: (step: string) => unknown = () => {};
  /** In place of what a socket in the pod answers. */
  inPod: Partial<Rtnl> = {};
  /** Whether the VF's driver makes its link again. */
  mayCome = false;
  /** Which of the VFs that had its address it is. */
  device: string | undefined = "one device";

  constructor() {
    const noCard = { vlanOf: () => 0, macOf: () => undefined, onMade: () => {}, onReturn: () => {} };
    this.#memory = new MemoryLinks(noCard, this.#handles, (notify) => void setImmediate(notify));
    const [host, pod] = [this.#memory.host.open(), this.#memory.createNetns()];
    this.host = { netns: host, rtnl: this.#memory.openRtnl(host) };
    this.pod = { netns: pod, rtnl: this.#memory.openRtnl(pod) };
    this.#opened.push(this.host.rtnl, this.pod.rtnl, host, pod);
    const random = { bytes: (count: number) => Buffer.alloc(count - 1, 0xab), fraction: () => 0, uuid: () => "" };
    const openRtnl = (netns: Netns) => this.#noting(netns);
    const linkOwnerOf = ({ netns }: Pick<LinkPlace, "netns">, link: Link) => this.#memory.ownerOf(netns, link);
    const netnsOf = this.#memory.netnsOf.bind(this.#memory);
    const linkSettings = this.#memory.settings;
    this.links = new HostLinks({ netns: host, openRtnl, linkOwnerOf, netnsOf, random, linkSettings }, this.clock);
  }

  /** The driver of the VF, or of another one, makes a link in the host, which udev may rename. */
  async plug(address = VF.address, name?: string): Promise<Link> {
    const { ifindex } = await this.#memory.plug({ ...VF, ...VF_DRIVER, address });
    if (name !== undefined) await this.host.rtnl.setLink(ifindex, { up: false });
    if (name !== undefined) await this.host.rtnl.setLink(ifindex, { name });
    return (await this.host.rtnl.linkByIndex(ifindex)) as Link;
  }

  /** The link goes, wherever it is. */
  async unplug(): Promise<void> {
    await this.#memory.unplug({ ...VF, ...VF_DRIVER });
  }

  /** As the VF's driver does when it is bound again: another link takes the place of the one before, wherever that is. */
  async renew(): Promise<void> {
    await this.unplug();
    await this.plug(VF.address, "vf0");
  }

  /** Another namespace that a client may live in. */
  openPod(): LinkPlace {
    const netns = this.#memory.createNetns();
    const rtnl = this.#memory.openRtnl(netns);
    this.#opened.push(rtnl, netns);
    return { netns, rtnl };
  }

  /** What it takes to attach the VF's link. */
  async attachParts(requested: RequestedNetdev): Promise<AttachOptions> {
    const port: PfPort = {
      pf: "0000:01:00.0 (enp1s0f0, driver paper)",
      read: async () => this.pf,
      write: async (_vf, change) => {
        await this.#step(`pf ${textOf(change)}`);
        this.pf = { ...this.pf, ...change };
      },
    };
    const index = async () => (await this.#memory.seen({ ...VF, ...VF_DRIVER }))?.ifindex;
    const vfLink: VfLink = { index, mayCome: async () => this.mayCome, device: async () => this.device };
    return {
      links: this.links,
      address: VF.address,
      client: this.pod.netns,
      ifindex: (await index()) ?? (await this.plug()).index,
      desired: desiredNetdev(requested),
      vf: { port, index: 0, settings: {} },
      vfLink,
      log: this.recorded,
      record: async (state) => {
        await this.#step("record");
        this.states.push(state);
      },
      onLeaving: () => void this.steps.push("leaving"),
    };
  }

  close(): void {
    for (const one of this.#opened) one.close();
    this.#handles.close();
  }

  async #step(step: string): Promise<void> {
    this.steps.push(step);
    await this.onStep(step);
  }

  #noting(netns: Netns): Rtnl {
    const place: Place = netns.isSame(this.host.netns) ? "host" : "pod";
    const rtnl = this.#memory.openRtnl(netns);
    for (const method of CHANGES) {
      const inner = rtnl[method].bind(rtnl) as (...args: unknown[]) => Promise<void>;
      const noting = async (...args: unknown[]) => {
        await this.#step(`${place} ${method === "setLink" ? textOf(args[1]) : `${method} ${textOf(args[0])}`}`);
        await inner(...args);
      };
      Object.assign(rtnl, { [method]: noting });
    }
    return place === "pod" ? Object.assign(rtnl, this.inPod) : rtnl;
  }
}

/** Tells a story in a world of its own. */
export async function inMemory(story: (world: MemoryWorld) => Promise<void>): Promise<void> {
  const world = new MemoryWorld();
  try {
    await story(world);
  } finally {
    world.close();
  }
}

/** As the kernel refuses it. */
export function refusal(code: ConstructorParameters<typeof KernelError>[1]): KernelError {
  return new KernelError("do it", code);
}

/** "mac=02:00:00:00:00:05 vlan=7"; of addresses, routes, rules and neighbours what tells them apart. */
function textOf(value: unknown): string {
  const { address, prefixLength, destination, table, family, ...rest } = value as Readonly<Record<string, unknown>>;
  if (destination !== undefined) return `${destination}/${prefixLength} table ${table}`;
  if (prefixLength !== undefined) return `${address}/${prefixLength}`;
  if (table !== undefined) return `IPv${family} table ${table}`;
  const entries = Object.entries({ ...(address !== undefined && { address }), ...rest });
  return entries.map(([key, one]) => (key === "netns" ? "move" : `${key}=${one}`)).join(" ");
}
