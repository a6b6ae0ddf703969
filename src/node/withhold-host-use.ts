// Which VFs of this node the host uses itself: they are withheld from clients, and PFs are reported. docs/decisions/027.

import type { Inventory } from "../inventory/index.ts";
import {
  DriverError,
  describeHostUse,
  desiredVfs,
  HostUseReader,
  type HostUseSeen,
  type NetdevUse,
  type PciAddress,
  type PfConfig,
  type PfEntry,
  type PhysicalFunction,
} from "../pci/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { Host } from "./host.ts";

interface HostUseWithholdingOptions {
  readonly host: Pick<Host, "devices" | "netns" | "openRtnl">;
  readonly inventory: Inventory;
  /** As it is now. */
  readonly config: () => PfConfig;
  readonly log: Log;
}

/** A link as it was at the last observation. */
interface LinkInHost {
  readonly address: PciAddress;
  readonly hasMaster: boolean;
}

/** Observes what the host uses of the configured PFs and their VFs, and keeps the inventory true to it. */
export class HostUseWithholding {
  readonly #options: HostUseWithholdingOptions;
  readonly #reader: HostUseReader;
  /** What the host uses each PF for, in words. */
  readonly #pfs = new Map<PciAddress, string>();
  #links: ReadonlyMap<number, LinkInHost> = new Map();
  #isInDoubt = false;

  /** @throws {KernelError} when the kernel refuses a socket. */
  constructor(options: HostUseWithholdingOptions) {
    this.#options = options;
    this.#reader = new HostUseReader(options.host);
  }

  /** By index, the links of VFs that were in the host at the last observation. */
  get links(): ReadonlyMap<number, LinkInHost> {
    return this.#links;
  }

  /** The kernel could not say at the last observation that there is no more than it listed: another one may know. */
  get isInDoubt(): boolean {
    return this.#isInDoubt;
  }

  /** What the host uses the PF for; undefined when it does not, as far as was seen last. */
  ofPf(pf: PciAddress): string | undefined {
    return this.#pfs.get(pf);
  }

  /**
   * Observes everything that no connection holds. Resolves with whether a PF is used otherwise than before.
   * @throws {KernelError}; what was known before still counts then.
   */
  async observe(): Promise<boolean> {
    const { inventory } = this.#options;
    const entries = new Map(this.#options.config().physicalFunctions.map((entry) => [entry.address, entry]));
    const idle = inventory.snapshot().filter((vf) => vf.connectionId === undefined);
    const usable = idle.filter(({ pf }) => entries.get(pf)?.hostUse !== "allow").map(({ address }) => address);
    const seen = await this.#reader.observe([...entries.keys(), ...usable]);
    this.#isInDoubt = seen.doubt !== undefined;
    this.#links = linksOf(seen.netdevs);
    for (const { address, connectionId } of inventory.snapshot()) {
      // What was given out meanwhile was checked for that, and what is known of it holds until it is free again.
      if (connectionId !== undefined) continue;
      const reason = reasonOf(seen.netdevs.get(address));
      if (reason !== undefined || !seen.doubt) this.#set(address, reason);
    }
    return this.#notePfs(entries, seen);
  }

  /**
   * Observes one VF again, right before it is touched for a client: what was seen earlier may not be so any more.
   * @throws {DriverError} host-uses-it; {KernelError} when the kernel does not say, or not for sure that the host does not.
   */
  async refuse(address: PciAddress): Promise<void> {
    const vf = this.#options.inventory.get(address);
    if (this.#entryOf(vf?.pf)?.hostUse === "allow") return;
    const reason = reasonOf(await this.#usesOf(address));
    if (reason === undefined) return;
    this.#set(address, reason);
    throw new DriverError(address, { kind: "host-uses-it", how: reason });
  }

  /** Why no VFs are made on the PF: with some drivers that resets the adapter. Undefined when they may be. @throws {KernelError} */
  async refuseCreation(pf: PhysicalFunction): Promise<string | undefined> {
    const { address, entry } = pf;
    if (entry.hostUse !== "withhold") return undefined;
    const words = describeHostUse(await this.#usesOf(address));
    if (!words) return undefined;
    const path = `/sys/bus/pci/devices/${address}/sriov_numvfs`;
    return `${address} has no virtual functions, and none are made on it, for the host uses it: ${words.what}; make them when the host can do without it (echo ${desiredVfs(pf)} > ${path}), or set hostUse: create-vfs`;
  }

  close(): void {
    this.#reader.close();
  }

  /** @throws {KernelError} also where none was seen and there may be one. */
  async #usesOf(address: PciAddress): Promise<readonly NetdevUse[] | undefined> {
    const { netdevs, doubt } = await this.#reader.observe([address]);
    const uses = netdevs.get(address);
    if (doubt && !describeHostUse(uses)) throw doubt;
    return uses;
  }

  #entryOf(pf: PciAddress | undefined): PfEntry | undefined {
    return this.#options.config().physicalFunctions.find(({ address }) => address === pf);
  }

  #set(address: PciAddress, how: string | undefined): void {
    const { inventory, log } = this.#options;
    if (how === undefined) {
      if (inventory.clear(address, "host-use")) log.info("vf-offered-again", { vf: address });
    } else if (inventory.raise(address, { code: "host-use", how }))
      log.warn("vf-withheld", { vf: address, reason: how });
  }

  #notePfs(entries: ReadonlyMap<PciAddress, PfEntry>, { netdevs, doubt }: HostUseSeen): boolean {
    let hasChanged = false;
    for (const address of new Set([...entries.keys(), ...this.#pfs.keys()])) {
      const reason = entries.has(address) ? describeHostUse(netdevs.get(address))?.what : undefined;
      const before = this.#pfs.get(address);
      if (reason === before || (doubt && reason === undefined && entries.has(address))) continue;
      hasChanged = true;
      if (reason === undefined) this.#pfs.delete(address);
      else this.#pfs.set(address, reason);
      this.#options.log.info(reason === undefined ? "pf-free-of-host" : "pf-used-by-host", {
        pf: address,
        how: reason,
      });
    }
    return hasChanged;
  }
}

function linksOf(seen: ReadonlyMap<PciAddress, readonly NetdevUse[]>): ReadonlyMap<number, LinkInHost> {
  const links = [...seen].flatMap(([address, netdevs]) => {
    return netdevs.map(({ ifindex, uses }) => {
      return [ifindex, { address, hasMaster: uses.some(({ kind }) => kind === "master") }] as const;
    });
  });
  return new Map(links);
}

function reasonOf(netdevs: readonly NetdevUse[] | undefined): string | undefined {
  const words = describeHostUse(netdevs);
  return words && `${words.what}; to end that: ${words.toEnd}`;
}
