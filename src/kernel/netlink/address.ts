import { ipFromBytes, ipToBytes } from "./ip.ts";
import { ifaddrmsg } from "./layout.ts";
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

export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
const RTM_GETADDR = 22;

// enum in include/uapi/linux/if_addr.h
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const IFA_FLAGS = 8;
const IFA_PROTO = 11;

const IFA_F_NODAD = 0x02;
const IFA_F_DADFAILED = 0x08;
const IFA_F_TENTATIVE = 0x40;
const IFA_F_PERMANENT = 0x80;

/** AF_INET and AF_INET6. */
const FAMILIES = { 4: 2, 6: 10 } as const;

/** IPv4 and IPv6. */
export type IpFamily = 4 | 6;

/** The kernel's number of a family, 0 for both of them. */
export function familyNumber(family: IpFamily | undefined): number {
  return family === undefined ? 0 : FAMILIES[family];
}

/** undefined for a family that is neither IPv4 nor IPv6. */
export function familyOf(number: number): IpFamily | undefined {
  if (number === FAMILIES[4]) return 4;
  return number === FAMILIES[6] ? 6 : undefined;
}

/** An address of a link. */
export interface Address {
  readonly ifindex: number;
  readonly family: IpFamily;
  /** The address itself, canonical text. */
  readonly address: string;
  readonly prefixLength: number;
  /** Who set it: 0 unknown, 1 loopback, 2 router advertisement, 3 link-local; others are free. Always 0 before Linux 5.18. */
  readonly protocol: number;
  readonly permanent: boolean;
  /** Not usable yet: duplicate address detection is not done with it (IPv6). */
  readonly tentative: boolean;
  readonly duplicate: boolean;
}

/** An address to be set, or removed. */
export interface NewAddress {
  readonly ifindex: number;
  readonly address: string;
  readonly prefixLength: number;
  readonly broadcast?: string;
  /** Skip duplicate address detection (IPv6). */
  readonly noDad?: boolean;
  readonly protocol?: number;
}

export function encodeAddress(action: "add" | "delete", address: NewAddress): NetlinkRequest {
  const bytes = ipBytes(address.address);
  const { prefixLength, ifindex: index, noDad, broadcast, protocol } = address;
  // Permanent by itself: no lifetime is given.
  const header = { family: familyNumber(bytes.length === 4 ? 4 : 6), prefixLength, index };
  const flags = action === "add" && noDad ? IFA_F_NODAD : 0;
  const body = encodeBody(ifaddrmsg, { ...header, flags }, (encoder) => {
    encoder.bytes(IFA_LOCAL, bytes);
    if (action === "add" && broadcast !== undefined) encoder.bytes(IFA_BROADCAST, ipBytes(broadcast));
    encoder.bytes(IFA_ADDRESS, bytes);
    if (action === "add" && protocol !== undefined) encoder.u8(IFA_PROTO, protocol);
  });
  return action === "add"
    ? { type: RTM_NEWADDR, flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body }
    : { type: RTM_DELADDR, flags: NLM_F_ACK, body };
}

/** Of one link (the kernel filters, Linux 4.20 with strict checking), or of all with index 0. */
export function encodeDumpAddresses(ifindex: number): NetlinkRequest {
  return { type: RTM_GETADDR, flags: NLM_F_DUMP, body: encodeBody(ifaddrmsg, { index: ifindex }) };
}

/** undefined for other families. @throws {RangeError} when the message is malformed. */
export function decodeAddress(message: NetlinkMessage): Address | undefined {
  const { header, attributes } = decodeBody(ifaddrmsg, message, "an address");
  const family = familyOf(header.family);
  if (!family) return undefined;
  // Of a point-to-point link IFA_ADDRESS is the other end; IPv6 sends IFA_LOCAL only then.
  const local = attributes.bytes(IFA_LOCAL) ?? attributes.bytes(IFA_ADDRESS);
  const flags = attributes.u32(IFA_FLAGS) ?? header.flags;
  const protocol = attributes.u8(IFA_PROTO) ?? 0;
  if (attributes.problem || !local) throw new RangeError(`an address: ${attributes.problem ?? "none in the message"}`);
  return {
    ifindex: header.index,
    family,
    address: ipFromBytes(local),
    prefixLength: header.prefixLength,
    protocol,
    permanent: (flags & IFA_F_PERMANENT) !== 0,
    tentative: (flags & IFA_F_TENTATIVE) !== 0,
    duplicate: (flags & IFA_F_DADFAILED) !== 0,
  };
}

/** @throws {RangeError} when the text is no address. */
export function ipBytes(text: string): Uint8Array {
  const bytes = ipToBytes(text);
  if (!bytes) throw new RangeError(`"${text}" is no IP address`);
  return bytes;
}
