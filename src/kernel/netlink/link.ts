import { type AttributeEncoder, NLA_HDR_BYTES, NLA_TYPE_MASK } from "./attribute.ts";
import { ifinfomsg } from "./layout.ts";
import {
  decodeBody,
  encodeBody,
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
} from "./message.ts";

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const RTM_NEWLINKPROP = 108;
const RTM_DELLINKPROP = 109;

// enum in include/uapi/linux/if_link.h
const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
export const IFLA_NUM_VF = 21;
export const IFLA_VFINFO_LIST = 22;
const IFLA_NET_NS_FD = 28;
const IFLA_EXT_MASK = 29;
const IFLA_LINK_NETNSID = 37;
const IFLA_PHYS_PORT_NAME = 38;
const IFLA_MIN_MTU = 50;
const IFLA_MAX_MTU = 51;
const IFLA_PROP_LIST = 52;
const IFLA_ALT_IFNAME = 53;
const IFLA_PARENT_DEV_NAME = 56;
const IFLA_PARENT_DEV_BUS_NAME = 57;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;

const IFF_UP = 1;
const IFF_LOWER_UP = 0x1_0000;

// Counters are never read here; leaving them out keeps the answer of a PF with many VFs below the 64 KiB of an attribute.
const RTEXT_FILTER_VF = 1;
const RTEXT_FILTER_SKIP_STATS = 8;

/** A network device as the kernel reports it. */
export interface Link {
  readonly index: number;
  readonly name: string;
  readonly altNames: readonly string[];
  readonly up: boolean;
  /** The wire (or the PF behind a VF) is there; only known while the link is up. */
  readonly carrier: boolean;
  readonly mtu: number;
  /** Limits of the driver (Linux 4.19 and newer); a `maxMtu` of 0 says that it gives none. */
  readonly minMtu: number | undefined;
  readonly maxMtu: number | undefined;
  /** "02:00:00:00:00:01"; undefined for links without an address. */
  readonly address: string | undefined;
  /** Name of the device it sits on, for a NIC its PCI address "0000:3b:02.1" (Linux 5.14). */
  readonly parentDevice: string | undefined;
  /** The bus of that device: "pci", "virtio", "auxiliary" (Linux 5.14). */
  readonly parentBus: string | undefined;
  /** Which port of an adapter it is, where the driver names it: "p0"; "pf0vf3" is the representor of a VF. */
  readonly portName: string | undefined;
  /** "veth", "bridge", …; undefined for real devices. */
  readonly kind: string | undefined;
  readonly master: number | undefined;
  /** The other end of a veth, as an index of the other end's namespace. */
  readonly peerIndex: number | undefined;
  /** The other end's namespace, as an id of this one's; undefined when it is this one. */
  readonly peerNetnsId: number | undefined;
}

/** Pairs whose ends name each other; of all other kinds the link that is named lies beneath. */
const PAIRS: readonly (string | undefined)[] = ["veth", "netkit", "vxcan"];

/** Whether it lies on the link of that index (VLAN, macvlan). Those in other namespaces the kernel does not name from beneath. */
export function isUpperOf({ index, peerIndex, peerNetnsId, kind }: Link, ifindex: number): boolean {
  return peerIndex === ifindex && peerNetnsId === undefined && index !== ifindex && !PAIRS.includes(kind);
}

/** What to change of a link; all in one request, in the kernel's own order. */
export interface LinkChange {
  readonly up?: boolean;
  readonly name?: string;
  readonly mtu?: number;
  readonly address?: string;
  /** Index of the bridge it joins; 0 leaves. */
  readonly master?: number;
  /** Descriptor of the namespace it moves to: it goes down on the way, and `name` is what it is called there. */
  readonly netnsFd?: number;
}

/** A link to be made. Descriptors are of the namespaces where the ends shall be. */
export interface NewLink {
  readonly kind: "veth" | "bridge";
  readonly name: string;
  readonly address?: string;
  readonly mtu?: number;
  readonly peer?: {
    readonly name: string;
    readonly address?: string;
    readonly mtu?: number;
    readonly netnsFd?: number;
  };
}

export function encodeGetLink(by: { readonly name: string } | { readonly index: number }, vfs = false): NetlinkRequest {
  const body = encodeBody(ifinfomsg, "index" in by ? { index: by.index } : {}, (attributes) => {
    if ("name" in by) attributes.string(Buffer.byteLength(by.name) > 15 ? IFLA_ALT_IFNAME : IFLA_IFNAME, by.name);
    attributes.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS | (vfs ? RTEXT_FILTER_VF : 0));
  });
  return { type: RTM_GETLINK, flags: 0, body };
}

export function encodeDumpLinks(): NetlinkRequest {
  return { ...encodeGetLink({ index: 0 }), flags: NLM_F_DUMP };
}

export function encodeSetLink(index: number, change: LinkChange): NetlinkRequest {
  const flags = change.up === undefined ? {} : { flags: change.up ? IFF_UP : 0, change: IFF_UP };
  return linkRequest({ index, ...flags }, (attributes) => addChange(attributes, change));
}

/** A SETLINK with attributes of the caller: VF settings of a PF. */
export function linkRequest(
  header: { readonly index: number; readonly flags?: number; readonly change?: number },
  fill: (attributes: AttributeEncoder) => void,
): NetlinkRequest {
  // RTM_NEWLINK without NLM_F_CREATE changes what is there, as `ip link set` does it.
  return { type: RTM_NEWLINK, flags: NLM_F_ACK, body: encodeBody(ifinfomsg, header, fill) };
}

export function encodeNewLink(link: NewLink): NetlinkRequest {
  const request = linkRequest({ index: 0 }, (attributes) => {
    addChange(attributes, link);
    attributes.plainNested(IFLA_LINKINFO, (info) => {
      info.bytes(IFLA_INFO_KIND, Buffer.from(link.kind));
      const { peer } = link;
      const body = peer && encodeBody(ifinfomsg, {}, (encoder) => addChange(encoder, peer));
      if (body) info.plainNested(IFLA_INFO_DATA, (data) => data.bytes(VETH_INFO_PEER, body));
    });
  });
  return { ...request, flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL };
}

export function encodeDeleteLink(index: number): NetlinkRequest {
  return { type: RTM_DELLINK, flags: NLM_F_ACK, body: encodeBody(ifinfomsg, { index }) };
}

/** Gives a link a further name, or takes one away. Linux 5.5. */
export function encodeAltName(action: "add" | "remove", index: number, name: string): NetlinkRequest {
  const request = linkRequest({ index }, (attributes) =>
    attributes.nested(IFLA_PROP_LIST, (list) => list.string(IFLA_ALT_IFNAME, name)),
  );
  return action === "add"
    ? { ...request, type: RTM_NEWLINKPROP, flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND }
    : { ...request, type: RTM_DELLINKPROP };
}

function addChange(attributes: AttributeEncoder, change: LinkChange): void {
  if (change.netnsFd !== undefined) attributes.u32(IFLA_NET_NS_FD, change.netnsFd);
  if (change.name !== undefined) attributes.string(IFLA_IFNAME, change.name);
  if (change.mtu !== undefined) attributes.u32(IFLA_MTU, change.mtu);
  if (change.address !== undefined) attributes.bytes(IFLA_ADDRESS, macToBytes(change.address));
  if (change.master !== undefined) attributes.u32(IFLA_MASTER, change.master);
}

/**
 * Whether the link has one of the names, or names another link of its own namespace as the one beneath it: found without
 * decoding, for a node has hundreds of links of pods, of which neither is so.
 */
export function isNamedOrAbove({ body }: NetlinkMessage, names: ReadonlySet<string>): boolean {
  let hasLower = false;
  let isElsewhere = false;
  for (let at = ifinfomsg.size; at + NLA_HDR_BYTES <= body.length; ) {
    const length = body.readUInt16LE(at);
    if (length < NLA_HDR_BYTES) return true; // the decoder says what is wrong
    const type = body.readUInt16LE(at + 2) & NLA_TYPE_MASK;
    if (type === IFLA_IFNAME && names.has(body.toString("utf8", at + NLA_HDR_BYTES, at + length - 1))) return true;
    hasLower ||= type === IFLA_LINK;
    isElsewhere ||= type === IFLA_LINK_NETNSID;
    at += (length + 3) & ~3;
  }
  return hasLower && !isElsewhere;
}

/** @throws {RangeError} when the message is malformed. */
export function decodeLink(message: NetlinkMessage): Link {
  const { header, attributes } = decodeBody(ifinfomsg, message, "a link");
  const altNames = attributes.nested(IFLA_PROP_LIST)?.strings(IFLA_ALT_IFNAME) ?? [];
  const link: Link = {
    index: header.index,
    name: attributes.string(IFLA_IFNAME) ?? "",
    altNames,
    up: (header.flags & IFF_UP) !== 0,
    carrier: (header.flags & IFF_LOWER_UP) !== 0,
    mtu: attributes.u32(IFLA_MTU) ?? 0,
    minMtu: attributes.u32(IFLA_MIN_MTU),
    maxMtu: attributes.u32(IFLA_MAX_MTU),
    address: macOf(attributes.bytes(IFLA_ADDRESS)),
    parentDevice: attributes.string(IFLA_PARENT_DEV_NAME),
    parentBus: attributes.string(IFLA_PARENT_DEV_BUS_NAME),
    portName: attributes.string(IFLA_PHYS_PORT_NAME),
    kind: attributes.nested(IFLA_LINKINFO)?.string(IFLA_INFO_KIND),
    master: attributes.u32(IFLA_MASTER),
    peerIndex: attributes.u32(IFLA_LINK),
    peerNetnsId: attributes.u32(IFLA_LINK_NETNSID),
  };
  if (attributes.problem) throw new RangeError(`link ${header.index}: ${attributes.problem}`);
  return link;
}

/** "02:00:00:00:00:01" → 6 bytes. @throws {RangeError} when the text is none. */
export function macToBytes(mac: string): Uint8Array {
  if (!/^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/.test(mac)) throw new RangeError(`"${mac}" is no MAC address`);
  return Uint8Array.from(mac.split(":"), (byte) => Number.parseInt(byte, 16));
}

/** Six bytes as text; undefined when there are none. */
export function macOf(bytes: Uint8Array | undefined): string | undefined {
  if (!bytes || bytes.length === 0) return undefined;
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}
