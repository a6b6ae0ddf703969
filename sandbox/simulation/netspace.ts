// Network namespaces in memory: what stands in each, and the rules by which Linux lets it change. Only what a VF with a kernel driver
// needs; test/contracts/links.ts holds it against the real one.
import {
  type Address,
  Errno,
  type Fd,
  KernelError,
  type Link,
  type Neighbour,
  type NetlinkEvent,
  type Netns,
  type Route,
  type Rule,
} from "../../src/kernel/index.ts";
import type { NicFunction } from "../nic/nic.ts";

/** A network device of a VF. */
export interface MemoryLink {
  readonly fn: NicFunction;
  index: number;
  name: string;
  altNames: string[];
  up: boolean;
  mtu: number;
  address: string;
  readonly permanentAddress: string;
}

export const MTU = { usual: 1500, least: 68, most: 9216 } as const;

/** One network namespace. It lives as long as a process has a handle of it. */
export class Netspace {
  readonly handle: Fd;
  readonly key: string;
  readonly links = new Map<number, MemoryLink>();
  addresses: Address[] = [];
  routes: Route[] = [];
  rules: Rule[] = [];
  neighbours: Neighbour[] = [];
  readonly sysctls = new Map<string, string>();
  readonly listeners = new Set<(event: NetlinkEvent) => void>();
  readonly #onEnd: (space: Netspace) => void;
  #handles = 0;
  #nextIndex = 2;

  constructor(handle: Fd, onEnd: (space: Netspace) => void) {
    this.handle = handle;
    this.key = keyOf(handle);
    this.#onEnd = onEnd;
  }

  /** A handle, owned by the caller. */
  open(): Netns {
    this.#handles += 1;
    const fd = this.handle.dup();
    return {
      fd,
      id: this.handle.id(),
      isSame: ({ id }) => `${id.dev}/${id.ino}` === this.key,
      dup: () => this.open(),
      close: () => {
        if (fd.isClosed) return;
        fd.close();
        this.#handles -= 1;
        if (this.#handles === 0) this.#onEnd(this);
      },
      readSysctl: (name) => this.#sysctl(name),
      writeSysctl: (name, value) => {
        this.#sysctl(name);
        this.sysctls.set(name, value);
      },
    };
  }

  /** @throws as a file of /proc that is not there. */
  #sysctl(name: string): string {
    const [, link] = /^net\/ipv6\/conf\/([^/]+)\//.exec(name) ?? [];
    const isThere = link === undefined || link === "lo" || this.named(link) !== undefined;
    const usual: Readonly<Record<string, string>> = { "net/ipv4/ping_group_range": "1\t0" };
    if (!isThere) throw Object.assign(new Error(`ENOENT: ${name}`), { code: "ENOENT" });
    return this.sysctls.get(name) ?? usual[name] ?? "0";
  }

  named(name: string): MemoryLink | undefined {
    return [...this.links.values()].find((link) => link.name === name || link.altNames.includes(name));
  }

  /** @throws {KernelError} ENODEV. */
  link(index: number, op: string): MemoryLink {
    const link = this.links.get(index);
    if (!link) throw new KernelError(op, Errno.ENODEV);
    return link;
  }

  /** The index stays where it is free, as in dev_change_net_namespace (net/core/dev.c). */
  put(link: MemoryLink): void {
    if (link.index === 0 || this.links.has(link.index)) link.index = this.#nextIndex;
    this.#nextIndex = Math.max(this.#nextIndex, link.index + 1);
    this.links.set(link.index, link);
    this.notifyLink("new-link", link);
  }

  take(link: MemoryLink): void {
    this.goDown(link);
    this.addresses = this.addresses.filter(({ ifindex }) => ifindex !== link.index);
    this.links.delete(link.index);
    this.notifyLink("gone-link", link);
  }

  /** Its routes and neighbours go, and its IPv6 addresses; rules stay (fib_netdev_event, addrconf_ifdown). */
  goDown(link: MemoryLink): void {
    const isOther = ({ ifindex }: { readonly ifindex: number | undefined }) => ifindex !== link.index;
    this.routes = this.routes.filter(isOther);
    this.neighbours = this.neighbours.filter(isOther);
    this.addresses = this.addresses.filter((address) => isOther(address) || address.family === 4);
    link.up = false;
  }

  notifyLink(kind: "new-link" | "gone-link", link: MemoryLink): void {
    this.notify({ kind, link: seen(link) });
  }

  notify(event: NetlinkEvent): void {
    for (const listener of [...this.listeners]) listener(event);
  }

  /** As the kernel fills in "eth%d". */
  freeName(pattern: string): string {
    if (!pattern.includes("%d")) return pattern;
    for (let number = 0; ; number++) {
      const name = pattern.replace("%d", String(number));
      if (!this.named(name)) return name;
    }
  }
}

/** As rtnetlink tells it. */
export function seen({ fn, up, altNames, ...rest }: MemoryLink): Link {
  return {
    ...rest,
    altNames: [...altNames],
    up,
    carrier: up,
    minMtu: MTU.least,
    maxMtu: MTU.most,
    parentDevice: fn.address,
    parentBus: "pci",
    portName: undefined,
    kind: undefined,
    master: undefined,
    peerIndex: undefined,
    peerNetnsId: undefined,
  };
}

/** By which a descriptor names its namespace. */
export function keyOf(fd: Pick<Fd, "id">): string {
  const { dev, ino } = fd.id();
  return `${dev}/${ino}`;
}
