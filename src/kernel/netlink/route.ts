import { familyNumber, familyOf, type IpFamily, ipBytes } from "./address.ts";
import type { AttributeEncoder } from "./attribute.ts";
import { ipFromBytes } from "./ip.ts";
import { decodeStruct, rtmsg } from "./layout.ts";
import {
  decodeBody,
  encodeBody,
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
} from "./message.ts";

export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;

// enum rtattr_type_t, include/uapi/linux/rtnetlink.h
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_MULTIPATH = 9;
const RTA_TABLE = 15;

const RTN_UNICAST = 1;
/** struct rtnexthop, include/uapi/linux/rtnetlink.h: u16 length, u8 flags, u8 hops, s32 index; then attributes. */
const RTNEXTHOP_BYTES = 8;
const RTNH_F_ONLINK = 4;
const RTM_F_CLONED = 0x200;
const RT_SCOPE_NOWHERE = 255;

/** The table that applies when no rule says otherwise. */
export const RT_TABLE_MAIN = 254;
/** The table with the kernel's own routes to local addresses. */
export const RT_TABLE_LOCAL = 255;

/** A route of any table. */
export interface Route {
  readonly family: IpFamily;
  /** Canonical text of the prefix; "0.0.0.0" or "::" with length 0 for the default route. */
  readonly destination: string;
  readonly prefixLength: number;
  readonly gateway: string | undefined;
  /** undefined for routes without a link (unreachable, blackhole) and with more than one next hop. */
  readonly ifindex: number | undefined;
  readonly table: number;
  /** RTPROT_*: who set it; 2 kernel, 3 boot, 4 static. */
  readonly protocol: number;
  /** RT_SCOPE_*; IPv6 has none and always reports 0. */
  readonly scope: number;
  /** RTN_*: 1 unicast. */
  readonly type: number;
  readonly metric: number;
  readonly onlink: boolean;
}

/** A unicast route to be set, or removed. */
export interface NewRoute {
  readonly family: IpFamily;
  readonly destination: string;
  readonly prefixLength: number;
  readonly gateway?: string | undefined;
  readonly ifindex?: number | undefined;
  /** RT_TABLE_MAIN by default. */
  readonly table?: number;
  readonly protocol?: number;
  readonly scope?: number;
  /** 0 or left out: IPv4 has 0 then, IPv6 1024. */
  readonly metric?: number;
  /** The gateway is reached on this link though no address of it says so. */
  readonly onlink?: boolean;
  /** Of an IPv4 route: be placed before a route with the same prefix and metric, which stays. Else that is EEXIST. */
  readonly prepend?: boolean;
}

export function encodeRoute(action: "add" | "delete", route: NewRoute): NetlinkRequest {
  const { table = RT_TABLE_MAIN } = route;
  const header = {
    family: familyNumber(route.family),
    destinationLength: route.prefixLength,
    table: table < 256 ? table : 0,
    protocol: route.protocol ?? 0,
    // A delete with "nowhere" matches any scope (fib_table_delete).
    scope: action === "add" ? (route.scope ?? 0) : RT_SCOPE_NOWHERE,
    type: action === "add" ? RTN_UNICAST : 0,
    flags: action === "add" && route.onlink ? RTNH_F_ONLINK : 0,
  };
  const body = encodeBody(rtmsg, header, (encoder) => addRoute(encoder, route, table));
  if (action === "delete") return { type: RTM_DELROUTE, flags: NLM_F_ACK, body };
  const exclusive = route.prepend ? 0 : NLM_F_EXCL;
  return { type: RTM_NEWROUTE, flags: NLM_F_ACK | NLM_F_CREATE | exclusive, body };
}

function addRoute(encoder: AttributeEncoder, route: NewRoute, table: number): void {
  if (route.prefixLength > 0) encoder.bytes(RTA_DST, ipBytes(route.destination));
  if (route.gateway !== undefined) encoder.bytes(RTA_GATEWAY, ipBytes(route.gateway));
  if (table >= 256) encoder.u32(RTA_TABLE, table);
  if (route.ifindex !== undefined) encoder.u32(RTA_OIF, route.ifindex);
  if (route.metric) encoder.u32(RTA_PRIORITY, route.metric);
}

/** All tables of one family. */
export function encodeDumpRoutes(family: IpFamily): NetlinkRequest {
  return { type: RTM_GETROUTE, flags: NLM_F_DUMP, body: encodeBody(rtmsg, { family: familyNumber(family) }) };
}

/** A route to everywhere: what the node sends to a destination without a route of its own leaves by these links. */
export interface DefaultRoute {
  readonly family: IpFamily;
  readonly table: number;
  /** Of all its next hops. */
  readonly ifindexes: readonly number[];
  /** Undefined for one without, and for one with several next hops. */
  readonly gateway: string | undefined;
}

/** Unicast routes of all tables; of one link only, unless its index is 0. A kernel before 4.20 filters neither. */
export function encodeDumpUnicastRoutes(family: IpFamily, ifindex: number): NetlinkRequest {
  const body = encodeBody(rtmsg, { family: familyNumber(family), type: RTN_UNICAST }, (encoder) => {
    if (ifindex !== 0) encoder.u32(RTA_OIF, ifindex);
  });
  return { type: RTM_GETROUTE, flags: NLM_F_DUMP, body };
}

/** Whether the message is about a default route: by its header alone, for there may be a million others. */
export function isDefaultRoute({ body }: NetlinkMessage): boolean {
  const header = decodeStruct(rtmsg, body);
  return header !== undefined && header.destinationLength === 0 && (header.flags & RTM_F_CLONED) === 0;
}

/** undefined for what is no unicast default route of IPv4 or IPv6. @throws {RangeError} when the message is malformed. */
export function decodeDefaultRoute(message: NetlinkMessage): DefaultRoute | undefined {
  if (!isDefaultRoute(message)) return undefined;
  const route = decodeRoute(message);
  if (route?.type !== RTN_UNICAST) return undefined;
  const { family, table, gateway, ifindex } = route;
  const hops = decodeBody(rtmsg, message, "a route").attributes.bytes(RTA_MULTIPATH);
  return { family, table, gateway, ifindexes: ifindex === undefined ? nextHopLinks(hops) : [ifindex] };
}

function nextHopLinks(hops: Uint8Array | undefined): readonly number[] {
  const links: number[] = [];
  const bytes = Buffer.from(hops ?? []);
  for (let at = 0; at + RTNEXTHOP_BYTES <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < RTNEXTHOP_BYTES) throw new RangeError(`a next hop of a route has ${length} bytes`);
    links.push(bytes.readInt32LE(at + 4));
    at += (length + 3) & ~3;
  }
  return links;
}

/** undefined for other families and for cached routes. @throws {RangeError} when the message is malformed. */
export function decodeRoute(message: NetlinkMessage): Route | undefined {
  const { header, attributes } = decodeBody(rtmsg, message, "a route");
  const family = familyOf(header.family);
  if (!family || (header.flags & RTM_F_CLONED) !== 0) return undefined;
  const destination = attributes.bytes(RTA_DST);
  const gateway = attributes.bytes(RTA_GATEWAY);
  const route: Route = {
    family,
    destination: destination ? ipFromBytes(destination) : family === 4 ? "0.0.0.0" : "::",
    prefixLength: header.destinationLength,
    gateway: gateway && ipFromBytes(gateway),
    ifindex: attributes.u32(RTA_OIF),
    table: attributes.u32(RTA_TABLE) ?? header.table,
    protocol: header.protocol,
    scope: header.scope,
    type: header.type,
    metric: attributes.u32(RTA_PRIORITY) ?? 0,
    onlink: (header.flags & RTNH_F_ONLINK) !== 0,
  };
  if (attributes.problem) throw new RangeError(`a route: ${attributes.problem}`);
  return route;
}
