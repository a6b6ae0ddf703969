import { AttributeDecoder, encodeAttributes } from "./attribute.ts";
import type { NetlinkMessage, NetlinkRequest } from "./message.ts";

// include/uapi/linux/net_namespace.h; struct rtgenmsg is one byte, padded to four.
const RTM_GETNSID = 90;
const RTGENMSG_BYTES = 4;
const NETNSA_NSID = 1;
const NETNSA_FD = 3;

export function encodeGetNamespaceId(netnsFd: number): NetlinkRequest {
  const attributes = encodeAttributes((encoder) => encoder.u32(NETNSA_FD, netnsFd));
  return { type: RTM_GETNSID, flags: 0, body: Buffer.concat([Buffer.alloc(RTGENMSG_BYTES), attributes]) };
}

/** Undefined for NETNSA_NSID_NOT_ASSIGNED (-1). @throws {RangeError} when the message is malformed. */
export function decodeNamespaceId(message: NetlinkMessage): number | undefined {
  const attributes = new AttributeDecoder(message.body.subarray(RTGENMSG_BYTES));
  const id = attributes.u32(NETNSA_NSID);
  if (attributes.problem) throw new RangeError(`a namespace's id: ${attributes.problem}`);
  return id === undefined || id === 0xffff_ffff ? undefined : id;
}
