// Keeps what is known of the host's use of functions true while we run: by the kernel's events, not by the clock.
import type { Clock, Timer } from "../async/index.ts";
import { type NetlinkEvent, Rtnl, type Uevent } from "../kernel/index.ts";
import { type Inventory, isLinkLocal, isUpperOf, type PciAddress } from "../sriov/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { Host } from "./host.ts";
import type { HostUseSurvey } from "./host-use.ts";

export interface HostUseWatchOptions {
  readonly hostUse: HostUseSurvey;
  readonly inventory: Inventory;
  readonly host: Pick<Host, "netns" | "uevents">;
  /** Told after each observation in which a PF is used otherwise than before. */
  readonly onPfChange: () => void;
  readonly clock: Clock;
  readonly log: Log;
}

/** An address that comes brings routes with it, a bridge its ports. */
const SETTLE_MS = 50;
/** An observation of a node with very many routes takes long: no more than this part of the time goes there. */
const PAUSE_FACTOR = 10;

export class HostUseWatch {
  readonly #options: HostUseWatchOptions;
  readonly #rtnl: Rtnl;
  readonly #stops: readonly (() => void)[];
  /** VFs that were free at the last observation: who comes back is looked at. */
  #free: ReadonlySet<PciAddress> = new Set();
  #tookMs = 0;
  #timer: Timer | undefined;
  #running: Promise<void> = Promise.resolve();
  #isClosed = false;

  /** Hears from now on; `look` for what is so already. */
  constructor(options: HostUseWatchOptions) {
    const { host, inventory } = options;
    this.#options = options;
    this.#rtnl = Rtnl.open({ netns: host.netns });
    const groups = ["link", "ipv4-address", "ipv6-address", "ipv4-route", "ipv6-route"] as const;
    this.#stops = [
      this.#rtnl.watch(groups, (event) => this.#concerns(event) && this.want()),
      host.uevents.subscribe((event) => this.#isOurs(event) && this.want()),
      inventory.onChange(() => this.#hasReturned() && this.want()),
    ];
  }

  /** Observes now. What is so is known on return. */
  look(): Promise<void> {
    this.#running = this.#running.then(() => this.#look());
    return this.#running;
  }

  /** Observes soon. */
  want(): void {
    if (this.#isClosed || this.#timer) return;
    this.#timer = this.#options.clock.after(Math.max(SETTLE_MS, PAUSE_FACTOR * this.#tookMs), () => {
      this.#timer = undefined;
      void this.look();
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const stop of this.#stops) stop();
    this.#timer?.cancel();
    await this.#running;
    this.#rtnl.close();
  }

  async #look(): Promise<void> {
    const { hostUse, inventory, onPfChange, clock, log } = this.#options;
    if (this.#isClosed) return;
    const startedMs = clock.monotonicMs();
    this.#free = new Set(freeOf(inventory));
    try {
      if (await hostUse.look()) onPfChange();
    } catch (error) {
      log.error("host-use-not-observed", { error: error instanceof Error ? error.message : String(error) });
    }
    this.#tookMs = clock.monotonicMs() - startedMs;
  }

  /** Most events of a node are of pods' devices. */
  #concerns(event: NetlinkEvent): boolean {
    const { ifindexes } = this.#options.hostUse;
    switch (event.kind) {
      case "lost":
        return true;
      case "default-route":
        return event.route.ifindexes.some((index) => ifindexes.has(index));
      case "new-address":
      case "gone-address":
        return ifindexes.has(event.address.ifindex) && !isLinkLocal(event.address);
      case "new-link":
      case "gone-link":
        return ifindexes.has(event.link.index) || [...ifindexes].some((index) => isUpperOf(event.link, index));
    }
  }

  /** A network device of a function has come, gone or been renamed, or its driver has changed. */
  #isOurs({ action, subsystem, devpath }: Uevent): boolean {
    if (action === "lost") return true;
    if (subsystem !== "net" && subsystem !== "pci") return false;
    const { inventory } = this.#options;
    return devpath.split("/").some((part) => inventory.get(part as PciAddress) !== undefined);
  }

  #hasReturned(): boolean {
    return freeOf(this.#options.inventory).some((address) => !this.#free.has(address));
  }
}

function freeOf(inventory: Inventory): readonly PciAddress[] {
  const idle = inventory.snapshot().filter(({ connectionId }) => connectionId === undefined);
  return idle.map(({ address }) => address);
}
