// What the previous instance attached to a client: continued when the client shows its namespace again, or restored.
import { fileKey, type Netns } from "../kernel/index.ts";
import type { Attachment, AttachmentState } from "../netdev/index.ts";
import { conditionOf, type DriverBinder, type Inventory } from "../sriov/index.ts";
import type { KernelVfEntry, VfJournal } from "./connection-journal.ts";
import type { HeldVf } from "./held-vf.ts";

export interface EarlierNetdevParts {
  readonly binder: DriverBinder;
  readonly inventory: Inventory;
  readonly journal: Pick<VfJournal, "vfs">;
  /** Throws where the link under that index of the host is not the function's. */
  readonly verify: (ifindex: number) => Promise<unknown>;
  /** Takes the network device over as it was left; without a namespace it is in the host, or its namespace is not known. */
  readonly adopt: (state: AttachmentState, client: Netns | undefined) => Attachment;
}

/** The network device of a VF as the previous instance left it, until the client's namespace comes or it is restored. */
export class EarlierNetdev {
  readonly #parts: EarlierNetdevParts;
  readonly #held: HeldVf;

  constructor(parts: EarlierNetdevParts, held: HeldVf) {
    this.#parts = parts;
    this.#held = held;
  }

  /** What was kept of it; undefined when there was nothing, or it has been met. */
  get kept(): KernelVfEntry | undefined {
    const { inventory, journal } = this.#parts;
    const vf = inventory.ofConnection(this.#held.ask.connectionId);
    const kept = vf && conditionOf(vf, "pending-netns") && journal.vfs.get(vf.address);
    return kept?.use === "kernel" ? kept : undefined;
  }

  /** Whether it is in that namespace, as far as can be known: it is not in the host, and was left there. */
  async isIn(client: Netns): Promise<boolean> {
    const { kept } = this;
    if (kept?.netns !== fileKey(client.id)) return false;
    return (await this.#parts.binder.netdevNow(kept.address)) === undefined;
  }

  /** Goes on with it in its namespace. After `isIn`. */
  resume({ address, state }: KernelVfEntry, client: Netns): Attachment {
    this.#parts.inventory.clear(address, "pending-netns");
    return this.#parts.adopt(state, client);
  }

  /** To bring it home, wherever it is now: the kernel may have put it there when its namespace ended. */
  async toBringHome(
    { address, netns, state }: KernelVfEntry,
    openClient: () => Netns | undefined,
  ): Promise<Attachment> {
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

  /** It is restored. */
  forget({ address }: KernelVfEntry): void {
    this.#parts.inventory.clear(address, "pending-netns");
  }
}
