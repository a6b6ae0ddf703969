// What an earlier process attached to a client: gone on with when the client shows its namespace again, or brought home.

import { fileKey, type Netns } from "../kernel/index.ts";
import type { Attachment, AttachmentState } from "../netdev/index.ts";
import type { DriverBinder, PciAddress } from "../sriov/index.ts";
import type { KeptVf } from "./connection-journal.ts";
import type { HeldVf } from "./held-vf.ts";

export interface EarlierNetdevParts {
  readonly binder: DriverBinder;
  /** Functions that an earlier process left with clients whose namespaces nobody has shown us yet. */
  readonly unmet: Map<PciAddress, KeptVf>;
  /** Throws where the link under that index of the host is not the function's. */
  readonly verify: (ifindex: number) => Promise<unknown>;
  /** Takes the network device over as it was left; without a namespace it is in the host, or its namespace is not known. */
  readonly adopt: (state: AttachmentState, client: Netns | undefined) => Attachment;
}

/** The network device of a function as an earlier process left it, until this process has met it. */
export class EarlierNetdev {
  readonly #parts: EarlierNetdevParts;
  readonly #held: HeldVf;

  constructor(parts: EarlierNetdevParts, held: HeldVf) {
    this.#parts = parts;
    this.#held = held;
  }

  /** What was kept of it; undefined when there was nothing, or it has been met. */
  get kept(): KeptVf | undefined {
    const kept = this.#parts.unmet.get(this.#held.address);
    return kept?.connectionId === this.#held.ask.connectionId ? kept : undefined;
  }

  /** Whether it is in that namespace, as far as can be known: it is not in the host, and was left there. */
  async isIn(client: Netns): Promise<boolean> {
    const { kept } = this;
    if (kept?.netns !== fileKey(client.id)) return false;
    return (await this.#parts.binder.netdevNow(kept.address)) === undefined;
  }

  /** Goes on with it in its namespace. After `isIn`. */
  resume({ address, state }: KeptVf, client: Netns): Attachment {
    this.#parts.unmet.delete(address);
    return this.#parts.adopt(state, client);
  }

  /** To bring it home, wherever it is now: the kernel may have put it there when its namespace ended. */
  async toBringHome({ address, netns, state }: KeptVf, openClient: () => Netns | undefined): Promise<Attachment> {
    const netdev = await this.#parts.binder.netdevNow(address);
    if (netdev) {
      await this.#parts.verify(netdev.ifindex);
      const original = { ...state.original, index: netdev.ifindex };
      return this.#parts.adopt({ ...state, original, name: netdev.ifname }, undefined);
    }
    const client = openClient();
    try {
      return this.#parts.adopt(state, client && fileKey(client.id) === netns ? client : undefined);
    } finally {
      client?.close();
    }
  }

  /** It is home. */
  forget({ address }: KeptVf): void {
    this.#parts.unmet.delete(address);
  }
}
