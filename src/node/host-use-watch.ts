// Keeps what is known of the host's use of VFs true while we run: by the kernel's events, not by the clock.
import { type Clock, messageOf, type Timer } from "../async/index.ts";
import type { Inventory } from "../inventory/index.ts";
import { isUpperOf, type Link, type NetlinkEvent, type Rtnl, type Uevent } from "../kernel/index.ts";
import { isLinkLocal, isPciAddress, type PciAddress } from "../pci/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { Host } from "./host.ts";
import type { HostUseWithholding } from "./withhold-host-use.ts";

interface HostUseWatchOptions {
  readonly hostUse: HostUseWithholding;
  readonly inventory: Inventory;
  readonly host: Pick<Host, "netns" | "openRtnl" | "uevents">;
  /** Called after each observation in which a PF is used otherwise than before. */
  readonly onPfChange: () => void;
  readonly clock: Clock;
  readonly log: Log;
}

/** An address that comes brings routes with it, a bridge its ports. */
const SETTLE_MS = 50;
/** An observation of a node with very many links takes long: only one part in so many of the time goes there. */
const PAUSE_FACTOR = 20;

export class HostUseWatch {
  readonly #options: HostUseWatchOptions;
  readonly #rtnl: Rtnl;
  readonly #stops: readonly (() => void)[];
  /** VFs that were free at the last observation: one that comes back is observed. */
  #free: ReadonlySet<PciAddress> = new Set();
  #tookMs = 0;
  #isObserving = false;
  #timer: Timer | undefined;
  #running: Promise<void> = Promise.resolve();
  #isClosed = false;

  /** Hears of changes from now on; `observe()` reads what is so already. */
  constructor(options: HostUseWatchOptions) {
    const { host, inventory } = options;
    this.#options = options;
    this.#rtnl = host.openRtnl(host.netns);
    const groups = ["link", "ipv4-address", "ipv6-address", "ipv4-route", "ipv6-route"] as const;
    this.#stops = [
      this.#rtnl.watch(groups, (event) => this.#concerns(event) && this.want()),
      host.uevents.subscribe((event) => this.#isOurs(event) && this.want()),
      inventory.onChange(({ vfs }) => this.#hasReturned(vfs) && this.want()),
    ];
  }

  /** Observes now. What is so is known on return. */
  observe(): Promise<void> {
    this.#running = this.#running.then(() => this.#observe());
    return this.#running;
  }

  /** Observes soon. */
  want(): void {
    if (this.#isClosed || this.#timer) return;
    this.#timer = this.#options.clock.after(Math.max(SETTLE_MS, PAUSE_FACTOR * this.#tookMs), () => {
      this.#timer = undefined;
      void this.observe();
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const stop of this.#stops) stop();
    this.#timer?.cancel();
    await this.#running;
    this.#rtnl.close();
  }

  async #observe(): Promise<void> {
    const { hostUse, inventory, onPfChange, clock, log } = this.#options;
    if (this.#isClosed) return;
    const startedMs = clock.monotonicMs();
    const free = inventory.snapshot().filter(({ connectionId }) => connectionId === undefined);
    this.#free = new Set(free.map(({ address }) => address));
    this.#isObserving = true;
    try {
      if (await hostUse.observe()) onPfChange();
    } catch (error) {
      log.error("host-use-not-observed", { error: messageOf(error) });
    }
    this.#isObserving = false;
    this.#tookMs = clock.monotonicMs() - startedMs;
    if (hostUse.isInDoubt) this.want();
  }

  /** Most events of a node are of pods' devices, and of our own moves and settings. */
  #concerns(event: NetlinkEvent): boolean {
    if (event.kind === "lost") return true;
    if ("address" in event && isLinkLocal(event.address)) return false;
    // The link may be one that is only just being known.
    if (this.#isObserving) return event.kind !== "gone-link" || event.link.peerIndex !== undefined;
    const { links } = this.#options.hostUse;
    switch (event.kind) {
      case "default-route":
        return event.route.ifindexes.some((index) => links.has(index));
      case "new-address":
      case "gone-address":
        return links.has(event.address.ifindex);
      case "new-link":
        return this.#hasOtherMaster(event.link) || this.#isUpper(event.link);
      case "gone-link":
        return this.#isUpper(event.link);
    }
  }

  #hasOtherMaster({ index, master = 0 }: Link): boolean {
    const known = this.#options.hostUse.links.get(index);
    return known !== undefined && known.hasMaster !== master > 0;
  }

  #isUpper(link: Link): boolean {
    const { peerIndex } = link;
    return peerIndex !== undefined && this.#options.hostUse.links.has(peerIndex) && isUpperOf(link, peerIndex);
  }

  /** A network device of a VF has come, gone or been renamed, or its driver has changed. */
  #isOurs({ action, subsystem, devpath }: Uevent): boolean {
    if (action === "lost") return true;
    if (subsystem !== "net" && subsystem !== "pci") return false;
    const { inventory } = this.#options;
    return devpath.split("/").some((part) => isPciAddress(part) && inventory.get(part) !== undefined);
  }

  #hasReturned(vfs: Iterable<PciAddress>): boolean {
    const { inventory } = this.#options;
    for (const address of vfs) {
      const vf = inventory.get(address);
      if (vf && vf.connectionId === undefined && !this.#free.has(address)) return true;
    }
    return false;
  }
}
