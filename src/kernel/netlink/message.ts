import { AttributeDecoder, type AttributeEncoder, encodeAttributes } from "./attribute.ts";
import { decodeStruct, encodeStruct, type Layout, nlmsghdr, type Struct } from "./layout.ts";

// Flags of a request and of an answer, include/uapi/linux/netlink.h.
const NLM_F_REQUEST = 0x01;
export const NLM_F_ACK = 0x04;
/** The dump was cut by a change while it ran: what came is not one moment's picture. */
export const NLM_F_DUMP_INTR = 0x10;
/** In an NLMSG_ERROR: the request is not quoted, attributes follow the code directly. */
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
// #define NLM_F_DUMP (NLM_F_ROOT | NLM_F_MATCH). Same bits as REPLACE | EXCL of a NEW request.
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLMSG_OVERRUN = 4;

// enum nlmsgerr_attrs
const NLMSGERR_ATTR_MSG = 1;

/** A request before the socket gives it its sequence number. */
export interface NetlinkRequest {
  readonly type: number;
  /** Besides NLM_F_REQUEST. */
  readonly flags: number;
  /** The family's header and the attributes. */
  readonly body: Uint8Array;
}

/** One message of an answer or of a notification. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly seq: number;
  readonly port: number;
  readonly body: Buffer;
}

/** How an answer ends: errno 0 is success. */
interface NetlinkEnd {
  readonly errno: number;
  /** What the kernel says about it (extended ack), also with a success ("Device doesn't support …"). */
  readonly text: string | undefined;
}

/** The body of a request: the header of its family, and the attributes that `fill` adds. */
export function encodeBody<L extends Layout>(
  layout: L,
  values: Partial<Struct<L["fields"]>>,
  fill: (attributes: AttributeEncoder) => void = () => {},
): Buffer {
  return Buffer.concat([encodeStruct(layout, values), encodeAttributes(fill)]);
}

/** The same of an answer. `what` it is, for the error: "an address". @throws {RangeError} when it is too short. */
export function decodeBody<L extends Layout>(layout: L, { body }: NetlinkMessage, what: string) {
  const header = decodeStruct<L["fields"]>(layout, body);
  if (!header) throw new RangeError(`${what} message has ${body.length} bytes, fewer than its header`);
  return { header, attributes: new AttributeDecoder(body.subarray(layout.size)) };
}

export function encodeMessage(request: NetlinkRequest, seq: number): Buffer {
  const header = encodeStruct(nlmsghdr, {
    len: nlmsghdr.size + request.body.length,
    type: request.type,
    flags: request.flags | NLM_F_REQUEST,
    seq,
  });
  return Buffer.concat([header, request.body]);
}

/** @throws {RangeError} when the bytes are not whole messages. */
export function decodeMessages(bytes: Buffer): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  // #define NLMSG_ALIGN(len) (((len) + NLMSG_ALIGNTO - 1) & ~(NLMSG_ALIGNTO - 1))
  for (let at = 0; at < bytes.length; ) {
    const header = decodeStruct(nlmsghdr, bytes, at);
    if (!header || header.len < nlmsghdr.size || at + header.len > bytes.length) {
      throw new RangeError(`a netlink message at byte ${at} of ${bytes.length} is cut short`);
    }
    const { type, flags, seq, pid: port } = header;
    messages.push({ type, flags, seq, port, body: bytes.subarray(at + nlmsghdr.size, at + header.len) });
    at += (header.len + 3) & ~3;
  }
  return messages;
}

/** What an NLMSG_ERROR or NLMSG_DONE says; undefined for a message that carries data. */
export function endOf(message: NetlinkMessage): NetlinkEnd | undefined {
  if (message.type === NLMSG_OVERRUN) return { errno: 105, text: "the kernel reports lost data" };
  if (message.type !== NLMSG_ERROR && message.type !== NLMSG_DONE) return undefined;
  const code = message.body.length >= 4 ? message.body.readInt32LE(0) : 0;
  return { errno: -code, text: extendedAckText(message) };
}

function extendedAckText(message: NetlinkMessage): string | undefined {
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return undefined;
  let at = 4;
  if (message.type === NLMSG_ERROR) {
    // struct nlmsgerr: s32 error, then the header of the request and, unless capped, its body (netlink_ack).
    const quoted = decodeStruct(nlmsghdr, message.body, 4);
    if (!quoted) return undefined;
    at += (message.flags & NLM_F_CAPPED) === 0 ? (quoted.len + 3) & ~3 : nlmsghdr.size;
  }
  return new AttributeDecoder(message.body.subarray(at)).string(NLMSGERR_ATTR_MSG);
}
