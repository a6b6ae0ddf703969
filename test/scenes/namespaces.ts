// Throw-away network namespaces for tests of links: nothing here ever touches the machine's own.
import type { TestContext } from "node:test";
import { systemClock, systemRandom } from "../../src/async/index.ts";
import { type Link, type LinkOwnerOf, Netns, type OpenRtnl, Rtnl } from "../../src/kernel/index.ts";
import { HostLinks, linkSettingsOf, type PfPort, type VfIdentity, type VfSettings } from "../../src/netdev/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";

/** A namespace and a socket in it. */
export interface Place {
  readonly netns: Netns;
  readonly rtnl: Rtnl;
}

/** A host with a link that stands for a VF (a veth, its other end in `wire`), and an empty pod. */
export interface World {
  readonly host: Place;
  readonly pod: Place;
  readonly wire: Place;
  readonly vf: Link;
  /** The link is that of a VF of this address, and no other link is. */
  readonly of: VfIdentity;
  readonly links: HostLinks;
  /** As the VF's driver does when it is bound again: another link takes the place of the one before, wherever that is. */
  renew(): Promise<void>;
  close(): void;
}

export const VF_ADDRESS = "0000:01:10.0";
export const VF_MAC = "02:00:00:00:aa:01";

export function openPlace(): Place {
  const netns = Netns.create();
  return { netns, rtnl: Rtnl.open({ netns }) };
}

export async function openWorld(): Promise<World> {
  const [host, pod, wire] = [openPlace(), openPlace(), openPlace()];
  const make = async () => {
    const peer = { name: "port0", netns: wire.netns };
    await host.rtnl.createLink({ kind: "veth", name: "vf0", address: VF_MAC, peer });
    const made = await linkNamed(wire, "port0");
    await wire.rtnl.setLink(made.index, { up: true });
    return made;
  };
  let port = await make();
  const vf = await linkNamed(host, "vf0");
  const address = VF_ADDRESS;
  const linkOwnerOf: LinkOwnerOf = async (_place, { kind, peerIndex }) =>
    kind === "veth" && peerIndex === port.index
      ? { pciFunction: address, text: `PCI function ${address}` }
      : { pciFunction: undefined, text: "no device" };
  return {
    host,
    pod,
    wire,
    vf,
    of: { address, linkOwnerOf },
    links: linksOf(host, { linkOwnerOf }),
    async renew() {
      await wire.rtnl.deleteLink(port.index).catch(() => {}); // it has gone already
      port = await make();
    },
    close() {
      for (const place of [host, pod, wire]) {
        place.rtnl.close();
        place.netns.close();
      }
    },
  };
}

/** The links of a host, of this machine. */
export function linksOf(
  { netns }: Place,
  parts: { readonly linkOwnerOf: LinkOwnerOf; readonly openRtnl?: OpenRtnl },
  clock = systemClock,
): HostLinks {
  const openRtnl = (place: Netns) => Rtnl.open({ netns: place });
  const linkSettings = linkSettingsOf(netns);
  const outside = { netns, openRtnl, netnsOf: Netns.fromFd, random: systemRandom, linkSettings };
  return new HostLinks({ ...outside, ...parts }, clock);
}

/** The same of a kernel that takes 400 ms to remove a link or a rule. */
export function slowLinks({ host, of }: World): HostLinks {
  let tookMs = 0;
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + tookMs };
  const openRtnl = (netns: Netns) => {
    const rtnl = Rtnl.open({ netns });
    const [deleteLink, deleteRule] = [rtnl.deleteLink.bind(rtnl), rtnl.deleteRule.bind(rtnl)];
    const slow =
      <T>(act: (of: T) => Promise<void>) =>
      async (which: T) => {
        tookMs += 400;
        await act(which);
      };
    return Object.assign(rtnl, { deleteLink: slow(deleteLink), deleteRule: slow(deleteRule) });
  };
  return linksOf(host, { linkOwnerOf: of.linkOwnerOf, openRtnl }, clock);
}

/** What it takes to attach the world's link, whose driver makes no other one, with a PF that keeps what is set. */
export function attachPartsOf({ links, of, pod, vf }: World) {
  let actual: VfSettings = { mac: "00:00:00:00:00:00", vlan: 0 };
  const port: PfPort = {
    pf: "0000:01:00.0 (enp1s0f0, driver paper)",
    read: async () => actual,
    async write(_vf, change) {
      actual = { ...actual, ...change };
    },
  };
  return {
    links,
    address: of.address,
    client: pod.netns,
    ifindex: vf.index,
    vf: { port, index: 0, settings: {} as VfSettings },
    vfLink: {
      index: async () => undefined as number | undefined,
      mayCome: async () => false,
      device: async () => "a device",
    },
    log: silentLog,
  };
}

/** Tells a story in a world of its own, where the machine can make one. */
export async function inWorld(t: TestContext, story: (world: World) => Promise<void>): Promise<void> {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const world = await openWorld();
  try {
    await story(world);
  } finally {
    world.close();
  }
}

/** The link of that name. @throws {Error} when there is none. */
export async function linkNamed(place: Place, name: string): Promise<Link> {
  const link = await place.rtnl.linkByName(name);
  if (!link) throw new Error(`No link ${name}`);
  return link;
}

/** All that a person would see with `ip`, one line each, in order: what the kernel made by itself is left out. */
export async function picture({ rtnl }: Place): Promise<string[]> {
  const links = await rtnl.links();
  const nameOf = (index: number | undefined) => links.find((link) => link.index === index)?.name ?? "-";
  const lines = links.map(
    (link) =>
      `link ${link.name} ${[...link.altNames].sort()} ${link.address} mtu ${link.mtu} ${link.up ? "up" : "down"}`,
  );
  for (const address of await rtnl.addresses()) {
    if (address.protocol > 3 || address.protocol === 0) {
      lines.push(
        `address ${address.address}/${address.prefixLength} on ${nameOf(address.ifindex)} by ${address.protocol}`,
      );
    }
  }
  for (const route of await rtnl.routes()) {
    if (route.protocol === 2) continue;
    const via = `${route.gateway ?? "link"} on ${nameOf(route.ifindex)}`;
    lines.push(`route ${route.destination}/${route.prefixLength} via ${via} table ${route.table} by ${route.protocol}`);
  }
  for (const rule of await rtnl.rules()) {
    const from = rule.from ? `${rule.from.address}/${rule.from.prefixLength}` : "all";
    const ports = (range: { first: number; last: number } | undefined) =>
      range ? `${range.first}-${range.last}` : "*";
    const selector = `${rule.ipProtocol ?? "*"} ${ports(rule.sourcePorts)} ${ports(rule.destinationPorts)}`;
    lines.push(`rule IPv${rule.family} from ${from} ${selector} table ${rule.table} by ${rule.protocol}`);
  }
  for (const neighbour of await rtnl.neighbours()) {
    if (!neighbour.permanent) continue;
    lines.push(
      `neighbour ${neighbour.address} ${neighbour.mac} on ${nameOf(neighbour.ifindex)} by ${neighbour.protocol}`,
    );
  }
  return lines.sort();
}
