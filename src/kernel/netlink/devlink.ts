// devlink: what a NIC is as a whole, beneath its network devices. Linux 4.6 and newer.
import { Errno } from "../errno.ts";
import { KernelError } from "../error.ts";
import type { Netns } from "../netns.ts";
import { Conversation, type NetlinkSocket } from "./conversation.ts";
import { decodeGeneric, encodeGeneric, familyId } from "./generic.ts";
import type { NetlinkMessage, NetlinkRequest } from "./message.ts";
import { NETLINK_GENERIC, openNetlinkSocket } from "./open-socket.ts";

// include/uapi/linux/devlink.h
const FAMILY = "devlink";
const VERSION = 1;
const DEVLINK_CMD_ESWITCH_GET = 29;
const DEVLINK_ATTR_BUS_NAME = 1;
const DEVLINK_ATTR_DEV_NAME = 2;
const DEVLINK_ATTR_ESWITCH_MODE = 25;
const DEVLINK_ESWITCH_MODE_LEGACY = 0;

/**
 * How a PF forwards between its port and its VFs: by MAC and VLAN, as the PF's settings say ("legacy"), or as a switch on the node
 * programs it through representors ("switchdev"), before which a VF reaches nothing.
 */
export type EswitchMode = "legacy" | "switchdev";

/**
 * No word about it: the kernel has no devlink, the driver does not register with it (ENODEV), or has no switch in it
 * (devlink_nl_eswitch_get_doit, net/devlink/dev.c).
 */
const NO_ESWITCH: readonly number[] = [Errno.ENOENT, Errno.ENODEV, Errno.EOPNOTSUPP];

export function encodeGetEswitch(family: number, pciAddress: string): NetlinkRequest {
  return encodeGeneric(family, {
    command: DEVLINK_CMD_ESWITCH_GET,
    version: VERSION,
    fill(attributes) {
      attributes.string(DEVLINK_ATTR_BUS_NAME, "pci");
      attributes.string(DEVLINK_ATTR_DEV_NAME, pciAddress);
    },
  });
}

/** Undefined when the answer has no mode. Every mode but legacy wants a switch on the node (Linux 6.18 has a third one). */
export function decodeEswitchMode(message: NetlinkMessage): EswitchMode | undefined {
  const mode = decodeGeneric(message).u16(DEVLINK_ATTR_ESWITCH_MODE);
  if (mode === undefined) return undefined;
  return mode === DEVLINK_ESWITCH_MODE_LEGACY ? "legacy" : "switchdev";
}

/** Questions to devlink over one socket. */
export class Devlink {
  readonly #conversation: Conversation;
  #family: Promise<number> | undefined;

  private constructor(socket: NetlinkSocket) {
    this.#conversation = new Conversation(socket);
  }

  /** In the network namespace: a NIC is seen from the one that it belongs to. @throws {KernelError} */
  static open(netns: Netns): Devlink {
    return new Devlink(openNetlinkSocket(netns, { protocol: NETLINK_GENERIC }));
  }

  /** Speaks to whatever answers at the other end of the socket. */
  static over(socket: NetlinkSocket): Devlink {
    return new Devlink(socket);
  }

  /**
   * The mode of a NIC's switch; undefined where it has none that devlink knows. Waits for a driver that is changing it, or
   * writing its firmware.
   * @throws {KernelError} EPERM without CAP_NET_ADMIN.
   */
  async eswitchMode(pciAddress: string): Promise<EswitchMode | undefined> {
    try {
      const family = await this.#familyId();
      const op = `read the switch mode of ${pciAddress}`;
      const [message] = await this.#conversation.request(encodeGetEswitch(family, pciAddress), { op });
      return message && decodeEswitchMode(message);
    } catch (error) {
      if (error instanceof KernelError && NO_ESWITCH.includes(error.errno)) return undefined;
      throw error;
    }
  }

  close(): void {
    this.#conversation.close();
  }

  /** A module that brings the family may be loaded later: only an answer is kept. */
  async #familyId(): Promise<number> {
    this.#family ??= familyId(this.#conversation, FAMILY);
    try {
      return await this.#family;
    } catch (error) {
      this.#family = undefined;
      throw error;
    }
  }
}
