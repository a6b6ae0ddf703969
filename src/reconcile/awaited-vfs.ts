// VFs of which the kernel's news are awaited. Most events of network devices are our own moves, and change nothing that is to be repaired.
import { conditionOf } from "../inventory/index.ts";
import type { Uevent } from "../kernel/index.ts";
import type { NodeJournal } from "../mechanisms/index.ts";
import type { Node } from "../node/index.ts";
import { isPciAddress, type PciAddress } from "../pci/index.ts";
import type { Repairs } from "./repairs.ts";

interface AwaitedOptions {
  readonly node: Pick<Node, "inventory">;
  readonly journal: Pick<NodeJournal, "vfs" | "unrestored">;
}

export class AwaitedVfs {
  readonly #options: AwaitedOptions;
  readonly #repairs: Pick<Repairs, "isAwaited">;

  constructor(options: AwaitedOptions, repairs: Pick<Repairs, "isAwaited">) {
    this.#options = options;
    this.#repairs = repairs;
  }

  /** Those that the event concerns, and that are to be observed for it. */
  of({ action, subsystem, devpath }: Uevent): readonly PciAddress[] {
    const { inventory } = this.#options.node;
    if (action === "lost") return inventory.snapshot().map(({ address }) => address);
    if (subsystem !== "net" && subsystem !== "pci") return [];
    return devpath.split("/").filter((part) => isPciAddress(part) && this.#isAwaited(part)) as PciAddress[];
  }

  #isAwaited(address: PciAddress): boolean {
    const { node, journal } = this.#options;
    const record = node.inventory.get(address);
    // What is heard of one that is being cleaned is our own doing.
    if (!record || conditionOf(record, "being-cleaned")) return false;
    if (conditionOf(record, "repair-failed")) return this.#repairs.isAwaited(record);
    if (conditionOf(record, "netdev-missing") || conditionOf(record, "pending-netns")) return true;
    const isFree = record.connectionId === undefined;
    // VFIO has had it: when its kernel driver has it again, so has the host its network device.
    const isToCome = journal.unrestored.has(address) && record.driver !== record.kernelDriver;
    return isFree && (isToCome || journal.vfs.has(address));
  }

  /** Whether it is free, and another link of the host has its name. */
  isUnderOtherName(address: PciAddress): boolean {
    const record = this.#options.node.inventory.get(address);
    const isFree = record !== undefined && record.connectionId === undefined;
    return isFree && conditionOf(record, "name-taken") !== undefined;
  }

  get underOtherNames(): readonly PciAddress[] {
    const all = this.#options.node.inventory.snapshot().map(({ address }) => address);
    return all.filter((address) => this.isUnderOtherName(address));
  }
}
