// Generic netlink: families that the kernel numbers as it starts, and the header that all of them share.
import { Errno } from "../errno.ts";
import { KernelError } from "../error.ts";
import { AttributeDecoder, type AttributeEncoder } from "./attribute.ts";
import type { Conversation } from "./conversation.ts";
import { genlmsghdr } from "./layout.ts";
import { encodeBody, type NetlinkMessage, type NetlinkRequest } from "./message.ts";

// The family that names the others, include/uapi/linux/genetlink.h.
const GENL_ID_CTRL = 16;
const CTRL_VERSION = 1;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;

/** A request to a family. */
interface GenericCommand {
  readonly command: number;
  readonly version: number;
  readonly fill: (attributes: AttributeEncoder) => void;
}

export function encodeGeneric(family: number, { command, version, fill }: GenericCommand): NetlinkRequest {
  return { type: family, flags: 0, body: encodeBody(genlmsghdr, { command, version }, fill) };
}

/** The attributes of an answer. */
export function decodeGeneric(message: NetlinkMessage): AttributeDecoder {
  return new AttributeDecoder(message.body.subarray(genlmsghdr.size));
}

export function encodeGetFamily(name: string): NetlinkRequest {
  const fill = (attributes: AttributeEncoder) => attributes.string(CTRL_ATTR_FAMILY_NAME, name);
  return encodeGeneric(GENL_ID_CTRL, { command: CTRL_CMD_GETFAMILY, version: CTRL_VERSION, fill });
}

/** The number of a family. @throws {KernelError} ENOENT where this kernel has none of that name. */
export async function familyId(conversation: Conversation, name: string): Promise<number> {
  const op = `find the netlink family ${name}`;
  const [message] = await conversation.request(encodeGetFamily(name), { op });
  const id = message && decodeGeneric(message).u16(CTRL_ATTR_FAMILY_ID);
  if (id === undefined) throw new KernelError(op, Errno.EBADMSG, "the answer has no number");
  return id;
}
