// All that the kernel says of one link and takes for it, in as few calls as can be: what it means is the caller's.
import { Errno } from "../errno.ts";
import { KernelError } from "../error.ts";
import type { Netns } from "../netns.ts";
import { AttributeDecoder } from "./attribute.ts";
import type { NetlinkSocket } from "./conversation.ts";
import { decodeEthtool, ETHTOOL_FAMILY, encodeEthtoolGet, encodeEthtoolSet } from "./ethtool.ts";
import { decodeGeneric, encodeGetFamily } from "./generic.ts";
import { ifinfomsg } from "./layout.ts";
import { encodeAltName, encodeGetLink, linkRequest } from "./link.ts";
import { decodeBody, type NetlinkMessage, type NetlinkRequest } from "./message.ts";
import { NETLINK_GENERIC, openNetlinkSocket } from "./open-socket.ts";
import { addRaw, type RawAttribute, rawAttributes, type WrittenAttribute } from "./raw-attributes.ts";
import { type BatchedAnswer, requestTogether } from "./request-together.ts";

const IFLA_IFNAME = 3;
const IFLA_XDP = 43;
const IFLA_XDP_FD = 1;
const IFLA_XDP_FLAGS = 3;
/** XDP_FLAGS_*_MODE, include/uapi/linux/if_link.h. */
const XDP_MODE_FLAGS = { skb: 2, drv: 4, hw: 8 } as const;
const NO_PROGRAM = 0xffff_ffff;
const CTRL_ATTR_FAMILY_ID = 1;

/** What the kernel says of a link, undecoded. */
export interface RawLink {
  readonly name: string;
  /** IFF_* */
  readonly flags: number;
  /** IFLA_* */
  readonly attributes: readonly RawAttribute[];
  /** The answer to each command of ethtool: attributes, or why there are none. */
  readonly ethtool: ReadonlyMap<number, readonly RawAttribute[] | KernelError>;
}

/** One change of a link. */
export type LinkWrite =
  | {
      readonly kind: "link";
      readonly flags?: { readonly value: number; readonly mask: number };
      readonly attributes?: readonly WrittenAttribute[];
    }
  /** Takes the XDP program of that mode off, unless a bpf_link holds it (EBUSY). */
  | { readonly kind: "xdp-off"; readonly mode: keyof typeof XDP_MODE_FLAGS }
  | { readonly kind: "altname"; readonly action: "add" | "remove"; readonly name: string }
  | { readonly kind: "ethtool"; readonly command: number; readonly attributes: readonly WrittenAttribute[] };

/** Two sockets in the link's namespace. Close it. */
export class LinkControl {
  readonly #route: NetlinkSocket;
  readonly #generic: NetlinkSocket;
  #family: number | undefined;

  private constructor(route: NetlinkSocket, generic: NetlinkSocket) {
    this.#route = route;
    this.#generic = generic;
  }

  /** @throws {KernelError} */
  static async open(netns: Netns): Promise<LinkControl> {
    const route = openNetlinkSocket(netns);
    let generic: NetlinkSocket | undefined;
    try {
      generic = openNetlinkSocket(netns, { protocol: NETLINK_GENERIC });
      const control = new LinkControl(route, generic);
      control.#family = await findFamily(generic);
      return control;
    } catch (error) {
      route.close();
      generic?.close();
      throw error;
    }
  }

  /** Everything of a link in one call for each socket. @throws {KernelError} ENODEV when there is no such link. */
  async read(index: number, commands: readonly number[]): Promise<RawLink> {
    const op = `read the settings of link ${index}`;
    const [[link], answers] = await Promise.all([
      requestTogether(this.#route, [{ op, request: encodeGetLink({ index }) }]),
      this.#query(commands.map((command) => [command, { op: `${op} (ethtool ${command})`, index }])),
    ]);
    const [message] = link?.messages ?? [];
    if (!message) throw link?.refusal ?? new KernelError(op, Errno.EPROTO, "the answer has no link");
    return { ...decodeRawLink(message), ethtool: answers };
  }

  /** Makes the changes in their order, those over ethtool last. Answers for each why it was refused. @throws {KernelError} */
  async write(index: number, writes: readonly LinkWrite[]): Promise<readonly (KernelError | undefined)[]> {
    const op = `restore the settings of link ${index}`;
    const refusals = new Map<LinkWrite, KernelError | undefined>();
    const isGeneric = (write: LinkWrite) => write.kind === "ethtool";
    for (const [socket, group] of [
      [this.#route, writes.filter((write) => !isGeneric(write))],
      [this.#generic, writes.filter(isGeneric)],
    ] as const) {
      const answers = await requestTogether(
        socket,
        group.map((write) => ({ op, request: this.#encode(index, write) })),
      );
      for (const [at, write] of group.entries()) refusals.set(write, answers[at]?.refusal);
    }
    return writes.map((write) => refusals.get(write));
  }

  close(): void {
    this.#route.close();
    this.#generic.close();
  }

  async #query(
    commands: readonly (readonly [number, { readonly op: string; readonly index: number }])[],
  ): Promise<ReadonlyMap<number, readonly RawAttribute[] | KernelError>> {
    const family = this.#family;
    // A kernel without the family: the same as one that knows none of its commands.
    if (family === undefined) {
      return new Map(commands.map(([command, { op }]) => [command, new KernelError(op, Errno.EOPNOTSUPP)]));
    }
    const answers = await requestTogether(
      this.#generic,
      commands.map(([command, { op, index }]) => ({ op, request: encodeEthtoolGet(family, command, index) })),
    );
    return new Map(commands.map(([command], at) => [command, attributesOf(answers[at])]));
  }

  #encode(index: number, write: LinkWrite): NetlinkRequest {
    if (write.kind === "altname") return encodeAltName(write.action, index, write.name);
    if (write.kind === "xdp-off") return encodeXdpOff(index, XDP_MODE_FLAGS[write.mode]);
    if (write.kind === "ethtool") return encodeEthtoolSet(this.#family ?? 0, { ...write, index });
    const { flags: { value, mask } = { value: 0, mask: 0 }, attributes = [] } = write;
    return linkRequest({ index, flags: value, change: mask }, (encoder) => addRaw(encoder, attributes));
  }
}

function encodeXdpOff(index: number, flags: number): NetlinkRequest {
  return linkRequest({ index }, (attributes) =>
    attributes.nested(IFLA_XDP, (xdp) => xdp.u32(IFLA_XDP_FD, NO_PROGRAM).u32(IFLA_XDP_FLAGS, flags)),
  );
}

async function findFamily(socket: NetlinkSocket): Promise<number | undefined> {
  const op = `find the netlink family ${ETHTOOL_FAMILY}`;
  const [answer] = await requestTogether(socket, [{ op, request: encodeGetFamily(ETHTOOL_FAMILY) }]);
  if (answer?.refusal?.errno === Errno.ENOENT) return undefined;
  if (answer?.refusal) throw answer.refusal;
  const [message] = answer?.messages ?? [];
  return message && decodeGeneric(message).u16(CTRL_ATTR_FAMILY_ID);
}

function attributesOf(answer: BatchedAnswer | undefined): readonly RawAttribute[] | KernelError {
  const [message] = answer?.messages ?? [];
  return answer?.refusal ?? (message ? decodeEthtool(message) : []);
}

function decodeRawLink(message: NetlinkMessage): Omit<RawLink, "ethtool"> {
  const { header } = decodeBody(ifinfomsg, message, "a link");
  const bytes = message.body.subarray(ifinfomsg.size);
  const name = new AttributeDecoder(bytes).string(IFLA_IFNAME) ?? "";
  return { name, flags: header.flags, attributes: rawAttributes(bytes) };
}
