import { Netns, Rtnl } from "../../src/kernel/index.ts";

/** A network device as a pod sees it. */
export interface PodLink {
  readonly name: string;
  readonly index: number;
  readonly up: boolean;
  readonly mtu: number;
  readonly mac: string | undefined;
  /** Of a veth: index of its other end, which does not change when the link is moved or renamed. */
  readonly peerIndex: number | undefined;
  /** "172.16.1.1/32", both families, without link-local ones; sorted. */
  readonly addresses: readonly string[];
  /** "172.16.1.0/32" or "10.0.0.0/8 via 172.16.1.0", all tables but the kernel's own; sorted. */
  readonly routes: readonly string[];
}

/** The kernel's own table of local addresses. */
const LOCAL_TABLE = 255;

/** RT_SCOPE_LINK: what the route leads to is on the link itself. */
const LINK_SCOPE = 253;

/** A pod as far as its network goes: a namespace of its own, and what is in it. */
export class Pod {
  readonly name: string;
  readonly netns: Netns;

  constructor(name: string) {
    this.name = name;
    this.netns = Netns.create();
  }

  /** Every device but the loopback, read again from the kernel. */
  links(): Promise<readonly PodLink[]> {
    return this.withRtnl(async (rtnl) => {
      const [links, addresses, routes] = [await rtnl.links(), await rtnl.addresses(), await rtnl.routes()];
      return links
        .filter(({ name }) => name !== "lo")
        .map(({ name, index, up, mtu, address, peerIndex }) => ({
          name,
          index,
          up,
          mtu,
          mac: address,
          peerIndex,
          addresses: addresses
            .filter((one) => one.ifindex === index && !one.address.startsWith("fe80:"))
            .map((one) => `${one.address}/${one.prefixLength}`)
            .sort(),
          routes: routes
            .filter((one) => one.ifindex === index && one.table !== LOCAL_TABLE)
            .filter((one) => !/^(fe80|ff)/.test(one.destination))
            .map(
              (one) =>
                `${one.destination}/${one.prefixLength}${one.gateway === undefined ? "" : ` via ${one.gateway}`}`,
            )
            .sort(),
        }));
    });
  }

  async link(name: string): Promise<PodLink | undefined> {
    return (await this.links()).find((link) => link.name === name);
  }

  /** Puts a link in use: up, with addresses and routes as host prefixes ("172.16.1.1/32"). For ends that no forwarder serves. */
  async takeLink(name: string, addresses: readonly string[], routes: readonly string[]): Promise<void> {
    await this.withRtnl(async (rtnl) => {
      const link = await rtnl.linkByName(name);
      if (link === undefined) throw new Error(`Cannot take ${name} into use: pod ${this.name} has no such link`);
      const ifindex = link.index;
      await rtnl.setLink(ifindex, { up: true });
      for (const one of addresses) await rtnl.addAddress({ ifindex, noDad: true, ...splitPrefix(one) });
      for (const one of routes) {
        const { address: destination, prefixLength } = splitPrefix(one);
        const family = destination.includes(":") ? 6 : 4;
        await rtnl.addRoute({ family, ifindex, destination, prefixLength, ...(family === 4 && { scope: LINK_SCOPE }) });
      }
    });
  }

  /** Speaks rtnetlink inside the pod. */
  async withRtnl<T>(act: (rtnl: Rtnl) => Promise<T>): Promise<T> {
    const rtnl = Rtnl.open({ netns: this.netns });
    try {
      return await act(rtnl);
    } finally {
      rtnl.close();
    }
  }

  /** The pod ends; its namespace goes when no other process holds it. */
  close(): void {
    this.netns.close();
  }
}

function splitPrefix(text: string): { address: string; prefixLength: number } {
  const [address = "", length = ""] = text.split("/");
  return { address, prefixLength: Number(length) };
}
