// The netlink family "ethtool" (Linux 5.6): what a driver lets be set of its device.
import { encodeAttributes } from "./attribute.ts";
import { encodeGeneric } from "./generic.ts";
import { genlmsghdr } from "./layout.ts";
import type { NetlinkMessage, NetlinkRequest } from "./message.ts";
import { addRaw, type RawAttribute, rawAttributes, type WrittenAttribute } from "./raw-attributes.ts";

// include/uapi/linux/ethtool_netlink.h. The header is the first attribute of each message of the family.
export const ETHTOOL_FAMILY = "ethtool";
const VERSION = 1;
const ETHTOOL_A_HEADER = 1;
const ETHTOOL_A_HEADER_DEV_INDEX = 1;
const ETHTOOL_A_HEADER_FLAGS = 3;
const ETHTOOL_FLAG_COMPACT_BITSETS = 1;
const ETHTOOL_FLAG_OMIT_REPLY = 2;
const ETHTOOL_A_BITSET_SIZE = 2;
const ETHTOOL_A_BITSET_VALUE = 4;
const ETHTOOL_A_BITSET_MASK = 5;

export function encodeEthtoolGet(family: number, command: number, index: number): NetlinkRequest {
  return encodeEthtool(family, { command, index, flags: ETHTOOL_FLAG_COMPACT_BITSETS, attributes: [] });
}

export function encodeEthtoolSet(
  family: number,
  change: { readonly command: number; readonly index: number; readonly attributes: readonly WrittenAttribute[] },
): NetlinkRequest {
  return encodeEthtool(family, { ...change, flags: ETHTOOL_FLAG_COMPACT_BITSETS | ETHTOOL_FLAG_OMIT_REPLY });
}

interface EthtoolCommand {
  readonly command: number;
  readonly index: number;
  readonly flags: number;
  readonly attributes: readonly WrittenAttribute[];
}

function encodeEthtool(family: number, { command, index, flags, attributes }: EthtoolCommand): NetlinkRequest {
  return encodeGeneric(family, {
    command,
    version: VERSION,
    fill(encoder) {
      encoder.nested(ETHTOOL_A_HEADER, (header) => {
        header.u32(ETHTOOL_A_HEADER_DEV_INDEX, index);
        header.u32(ETHTOOL_A_HEADER_FLAGS, flags);
      });
      addRaw(encoder, attributes);
    },
  });
}

/** What an answer says, without the header, which says of whom. */
export function decodeEthtool(message: NetlinkMessage): RawAttribute[] {
  return rawAttributes(message.body.subarray(genlmsghdr.size)).filter(({ type }) => type !== ETHTOOL_A_HEADER);
}

/** Value of an attribute that makes the bits of one set what they are in another, and leaves alone those that are so; compact form. */
export function bitsetChange(from: Buffer, to: Buffer): Buffer {
  const [before, after] = [bitsetOf(from), bitsetOf(to)];
  const mask = Buffer.from(after.value.map((byte, at) => byte ^ (before.value[at] ?? 0)));
  return encodeAttributes((encoder) => {
    encoder.bytes(ETHTOOL_A_BITSET_SIZE, after.size);
    encoder.bytes(ETHTOOL_A_BITSET_VALUE, after.value);
    encoder.bytes(ETHTOOL_A_BITSET_MASK, mask);
  });
}

function bitsetOf(bytes: Buffer): { readonly size: Buffer; readonly value: Buffer } {
  const found = rawAttributes(bytes);
  const part = (wanted: number) => found.find(({ type }) => type === wanted)?.value ?? Buffer.alloc(0);
  return { size: part(ETHTOOL_A_BITSET_SIZE), value: part(ETHTOOL_A_BITSET_VALUE) };
}
