import { familyNumber, familyOf, type IpFamily, ipBytes } from "./address.ts";
import { ipFromBytes } from "./ip.ts";
import { ndmsg } from "./layout.ts";
import { macOf, macToBytes } from "./link.ts";
import {
  decodeBody,
  encodeBody,
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_REPLACE,
} from "./message.ts";

const RTM_NEWNEIGH = 28;
const RTM_DELNEIGH = 29;
const RTM_GETNEIGH = 30;

// enum in include/uapi/linux/neighbour.h
const NDA_DST = 1;
const NDA_LLADDR = 2;
const NDA_IFINDEX = 8;
const NDA_PROTOCOL = 12;

const NUD_PERMANENT = 0x80;

/** Which MAC address an IP address has on a link. */
export interface Neighbour {
  readonly ifindex: number;
  readonly family: IpFamily;
  readonly address: string;
  readonly mac: string | undefined;
  /** Set, not learned: it never ages out. */
  readonly permanent: boolean;
  /** Who set it, as RTPROT_* (Linux 5.0). */
  readonly protocol: number;
}

/** A permanent one. */
export interface NewNeighbour {
  readonly ifindex: number;
  readonly address: string;
  readonly mac: string;
  readonly protocol?: number;
}

/** Adding makes a permanent entry, in the place of one that was learned. */
export function encodeNeighbour(
  action: "add" | "delete",
  neighbour: Omit<NewNeighbour, "mac"> & { mac?: string },
): NetlinkRequest {
  const bytes = ipBytes(neighbour.address);
  const { ifindex: index, mac, protocol } = neighbour;
  const state = action === "add" ? NUD_PERMANENT : 0;
  const header = { family: familyNumber(bytes.length === 4 ? 4 : 6), index, state };
  const body = encodeBody(ndmsg, header, (encoder) => {
    if (action === "add" && protocol !== undefined) encoder.u8(NDA_PROTOCOL, protocol);
    encoder.bytes(NDA_DST, bytes);
    if (action === "add" && mac !== undefined) encoder.bytes(NDA_LLADDR, macToBytes(mac));
  });
  return action === "add"
    ? { type: RTM_NEWNEIGH, flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, body }
    : { type: RTM_DELNEIGH, flags: NLM_F_ACK, body };
}

/** Of one link, which the kernel filters by the attribute (Linux 4.4), or of all with index 0. */
export function encodeDumpNeighbours(ifindex: number): NetlinkRequest {
  const body = encodeBody(ndmsg, {}, (encoder) => {
    if (ifindex !== 0) encoder.u32(NDA_IFINDEX, ifindex);
  });
  return { type: RTM_GETNEIGH, flags: NLM_F_DUMP, body };
}

/** undefined for other families. @throws {RangeError} when the message is malformed. */
export function decodeNeighbour(message: NetlinkMessage): Neighbour | undefined {
  const { header, attributes } = decodeBody(ndmsg, message, "a neighbour");
  const family = familyOf(header.family);
  const address = attributes.bytes(NDA_DST);
  if (!family || !address) return undefined;
  const neighbour: Neighbour = {
    ifindex: header.index,
    family,
    address: ipFromBytes(address),
    mac: macOf(attributes.bytes(NDA_LLADDR)),
    permanent: (header.state & NUD_PERMANENT) !== 0,
    protocol: attributes.u8(NDA_PROTOCOL) ?? 0,
  };
  if (attributes.problem) throw new RangeError(`a neighbour: ${attributes.problem}`);
  return neighbour;
}
