// Whether the host itself uses the network device of a PCI function: docs/decisions/027. Pure: who reads the kernel is
// host-use-reader.ts.
import { type Address, type DefaultRoute, isUpperOf, type Link } from "../kernel/index.ts";

/** The links of the host's namespace and what hangs on them, read at one time. */
export interface HostNetwork {
  readonly links: readonly Link[];
  readonly addresses: readonly Address[];
  readonly defaultRoutes: readonly DefaultRoute[];
}

/** One sign that the host uses a link. */
export type HostUse =
  | { readonly kind: "default-route"; readonly family: 4 | 6; readonly gateway: string | undefined }
  /** With the length of its prefix: "10.0.0.9/24". */
  | { readonly kind: "address"; readonly address: string }
  /** It is a port of this bridge, bond, VRF, team or switch. */
  | { readonly kind: "master"; readonly name: string; readonly type: string }
  /** This VLAN, macvlan, ipvlan, tunnel and the like sits on it. */
  | { readonly kind: "upper"; readonly name: string; readonly type: string };

/** Everything by which the host uses the link; empty when it does not. */
export function hostUseOf(network: HostNetwork, ifindex: number): readonly HostUse[] {
  const { links, addresses, defaultRoutes } = network;
  const link = links.find(({ index }) => index === ifindex);
  if (!link) return [];
  return [
    ...defaultRoutes
      .filter(({ ifindexes }) => ifindexes.includes(ifindex))
      .map(({ family, gateway }) => ({ kind: "default-route", family, gateway }) as const),
    ...addresses
      .filter((one) => one.ifindex === ifindex && !isLinkLocal(one))
      .map(({ address, prefixLength }) => ({ kind: "address", address: `${address}/${prefixLength}` }) as const),
    ...masterOf(link, links),
    ...links
      .filter((one) => isUpperOf(one, ifindex))
      .map(({ name, kind = "device" }) => ({ kind: "upper", name, type: kind }) as const),
  ];
}

function masterOf({ master }: Link, links: readonly Link[]): readonly HostUse[] {
  if (master === undefined || master === 0) return [];
  const found = links.find(({ index }) => index === master);
  return [{ kind: "master", name: found?.name ?? `link ${master}`, type: found?.kind ?? "device" }];
}

/** What every link that is up may have of its own: fe80::/10 (RFC 4291) and 169.254.0.0/16 (RFC 3927). */
export function isLinkLocal({ address }: Pick<Address, "address">): boolean {
  return /^fe[89ab][0-9a-f]:/.test(address) || address.startsWith("169.254.");
}

/** More than so many signs are counted only. */
const MOST_SIGNS = 3;

/** A network device of a PCI function in the host's namespace, and what the host uses it for: nothing where `uses` is empty. */
export interface NetdevUse {
  readonly ifname: string;
  readonly ifindex: number;
  readonly uses: readonly HostUse[];
}

/** The same of the first device that is used, of those of one PCI function; undefined where none is. */
export function describeHostUse(netdevs: readonly NetdevUse[] = []): ReturnType<typeof hostUseWords> | undefined {
  const used = netdevs.find(({ uses }) => uses.length > 0);
  return used && hostUseWords(used.ifname, used.uses);
}

/** What is so, "enp1s0v0 has address 10.0.0.9/24", and the commands that would end it. */
export function hostUseWords(
  ifname: string,
  uses: readonly HostUse[],
): { readonly what: string; readonly toEnd: string } {
  const shown = uses.slice(0, MOST_SIGNS);
  const more = uses.length > MOST_SIGNS ? `, and ${uses.length - MOST_SIGNS} more` : "";
  return {
    what: `${ifname} ${shown.map((use) => signOf(use)).join(", ")}${more}`,
    toEnd: shown.map((use) => endOf(ifname, use)).join(" && "),
  };
}

function signOf(use: HostUse): string {
  switch (use.kind) {
    case "default-route":
      return `has the IPv${use.family} default route${use.gateway === undefined ? "" : ` via ${use.gateway}`}`;
    case "address":
      return `has address ${use.address}`;
    case "master":
      return `is a port of ${use.name} (${use.type})`;
    case "upper":
      return `carries ${use.name} (${use.type})`;
  }
}

function endOf(ifname: string, use: HostUse): string {
  switch (use.kind) {
    case "default-route":
      return `ip -${use.family} route del default dev ${ifname}`;
    case "address":
      return `ip address del ${use.address} dev ${ifname}`;
    case "master":
      return `ip link set ${ifname} nomaster`;
    case "upper":
      return `ip link del ${use.name}`;
  }
}
