import { ipFromBytes, ipToBytes, type PortRange } from "../kernel/index.ts";
import { NetdevError, type RequestPart } from "./error.ts";
import { networkOf, type Prefix, parsePrefix } from "./prefix.ts";

/** Kernel limit on interface names: IFNAMSIZ (16, include/uapi/linux/if.h) counts the final NUL. */
const IFNAME_MAX_BYTES = 15;
/** The lowest MTU of IPv4 (RFC 791), and the highest that anything but a loopback has. */
const MTU_MIN = 68;
const MTU_MAX = 65_535;

/** Names of IP protocols that rules are made for, as /etc/protocols has them. */
const PROTOCOLS: ReadonlyMap<string, number> = new Map([
  ["icmp", 1],
  ["igmp", 2],
  ["tcp", 6],
  ["udp", 17],
  ["dccp", 33],
  ["gre", 47],
  ["esp", 50],
  ["ah", 51],
  ["icmpv6", 58],
  ["ipv6-icmp", 58],
  ["sctp", 132],
  ["udplite", 136],
]);

export function invalid(part: RequestPart, text: string, problem: string): NetdevError {
  return new NetdevError({ kind: "invalid", part, text, problem });
}

/**
 * The name of a link as the kernel takes it literally (dev_valid_name, net/core/dev.c), and not one that means
 * something else below /proc/sys.
 * @throws {NetdevError}
 */
export function parseInterfaceName(text: string): string {
  const bytes = Buffer.byteLength(text);
  if (bytes === 0) throw invalid("interface name", text, "it is empty");
  if (bytes > IFNAME_MAX_BYTES) {
    throw invalid("interface name", text, `it has ${bytes} bytes, at most ${IFNAME_MAX_BYTES} are taken`);
  }
  if ([".", "..", "all", "default"].includes(text)) throw invalid("interface name", text, "the kernel keeps that name");
  const wrong = /[\s/:%\p{Cc}\u{fffd}]/u.exec(text)?.[0];
  if (wrong !== undefined) {
    const shown = /[\s\p{Cc}]/u.test(wrong) ? "blanks and control characters" : `"${wrong}"`;
    throw invalid("interface name", text, `it may not have ${shown}`);
  }
  return text;
}

/** @throws {NetdevError} */
export function parseMtu(mtu: number): number {
  if (Number.isInteger(mtu) && mtu >= MTU_MIN && mtu <= MTU_MAX) return mtu;
  throw invalid("MTU", String(mtu), `want a whole number from ${MTU_MIN} to ${MTU_MAX}`);
}

/** A unicast address in lower case. @throws {NetdevError} */
export function parseMac(part: "MAC address" | "neighbour", text: string): string {
  if (!/^[0-9a-fA-F]{2}([:-])[0-9a-fA-F]{2}(?:\1[0-9a-fA-F]{2}){4}$/.test(text))
    throw invalid(part, text, "want six bytes as aa:bb:cc:dd:ee:ff");
  const mac = text.toLowerCase().replaceAll("-", ":");
  if (mac === "00:00:00:00:00:00") throw invalid(part, text, "it is all zero");
  if ((Number.parseInt(mac.slice(0, 2), 16) & 1) === 1)
    throw invalid(part, text, "it is a multicast address, no host has it");
  return mac;
}

/** @throws {NetdevError} */
export function parseVlan(vlan: number): number {
  if (Number.isInteger(vlan) && vlan >= 0 && vlan <= 4094) return vlan;
  throw invalid("VLAN", String(vlan), "want a whole number from 0 (none) to 4094");
}

/** An address that a host can have, with or without the length of its network. @throws {NetdevError} */
export function parseHostPrefix(part: "address" | "peer address" | "neighbour", text: string): Prefix {
  const prefix = parsePrefix(text);
  if (!prefix) throw invalid(part, text, 'want an IP address as "10.0.0.1/24" or "2001:db8::1/64"');
  const problem = whyNoHost(prefix.address);
  if (problem) throw invalid(part, text, problem);
  return prefix;
}

/** A network; bits behind its length are cut off. @throws {NetdevError} */
export function parseRoutePrefix(text: string, part: "route" | "rule" = "route"): Prefix {
  const prefix = parsePrefix(text);
  if (!prefix) throw invalid(part, text, 'want a network as "10.0.0.0/16" or "2001:db8::/48"');
  return networkOf(prefix);
}

/** @throws {NetdevError} */
export function parseNextHop(text: string, destination: Prefix): string {
  const bytes = ipToBytes(text);
  if (!bytes) throw invalid("next hop", text, "want an IP address without a length");
  const family = bytes.length === 4 ? 4 : 6;
  if (family !== destination.family) {
    throw invalid("next hop", text, `its route ${destination.address} is IPv${destination.family}`);
  }
  const address = ipFromBytes(bytes);
  const problem = whyNoHost(address);
  if (problem) throw invalid("next hop", text, problem);
  return address;
}

/** "80" or "80-90". @throws {NetdevError} */
export function parsePorts(text: string): PortRange {
  const [, first = "", last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? [];
  const range = { first: Number(first), last: Number(last) };
  if (first !== "" && range.first >= 1 && range.first <= range.last && range.last <= 65_534) return range;
  // fib_rule_port_range_valid (include/net/fib_rules.h): neither 0 nor 0xffff.
  throw invalid("port range", text, 'want "80" or "80-90", from 1 to 65534');
}

/** A name or a number. @throws {NetdevError} */
export function parseProtocol(text: string): number {
  const named = PROTOCOLS.get(text.toLowerCase());
  if (named !== undefined) return named;
  if (/^[1-9]\d{0,2}$/.test(text) && Number(text) <= 255) return Number(text);
  throw invalid("protocol", text, `want a number from 1 to 255 or one of ${[...PROTOCOLS.keys()].join(", ")}`);
}

function whyNoHost(address: string): string | undefined {
  const bytes = ipToBytes(address) ?? new Uint8Array(0);
  const isV4 = bytes.length === 4;
  const first = bytes[0] ?? 0;
  if (bytes.every((byte) => byte === 0)) return "it is the unspecified address";
  if (isV4 ? first >= 224 : first === 0xff) return "it is a multicast or reserved address, no host has it";
  if (isV4 ? first === 127 : address === "::1") return "it is a loopback address";
  if (isV4 && first === 0) return "network 0.0.0.0/8 has no hosts";
  if (address.startsWith("::ffff:")) return "it is an IPv4 address in IPv6 clothing";
  return undefined;
}
