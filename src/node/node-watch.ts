// News of the node: VFs that come and go, drivers that change, links, another list of PFs.
import { type Clock, messageOf, type Timer } from "../async/index.ts";
import type { Link, NetlinkEvent, Rtnl, Uevent } from "../kernel/index.ts";
import { isPciAddress, type PciAddress, PfConfigError, parsePfConfig } from "../pci/index.ts";
import type { Condition, Health, Log } from "../telemetry/index.ts";
import type { Host } from "./host.ts";
import { HostUseWatch } from "./host-use-watch.ts";
import type { Node } from "./node.ts";

/** The file with the list of PFs, watched. */
export interface PfConfigFile {
  readonly path: string;
  /** @throws when it cannot be read. */
  read(): Promise<string>;
  /** Calls back when it may have changed. Returns how to stop. */
  onChange(listener: () => void): () => void;
}

interface NodeWatchOptions {
  readonly node: Node;
  readonly host: Host;
  /** Undefined where the list stays what it was at the start. */
  readonly pfConfigFile: PfConfigFile | undefined;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Log;
}

/** An adapter that comes or goes brings hundreds of events within some milliseconds. */
const SETTLE_MS = 50;

/** Another process that ends is no event: what it has is tried again after so long. */
const RETRY_MS = 5_000;

/** An observation may wait for a driver that makes VFs: a stop does not. */
const STOP_MS = 1000;

/** Keeps what is known of the node true from now on; the links are known on return. */
export async function watchNode(options: NodeWatchOptions): Promise<NodeWatch> {
  const watch = new NodeWatch(options);
  await watch.start();
  return watch;
}

class NodeWatch {
  readonly #options: NodeWatchOptions;
  readonly #rtnl: Rtnl;
  readonly #refused: Condition;
  readonly #hostUse: HostUseWatch;
  readonly #stops: (() => void)[];
  /** What is to be observed. */
  readonly #todo = { all: false, config: false, links: false, drivers: new Set<PciAddress>() };
  #pfByIndex: ReadonlyMap<number, { readonly pf: PciAddress; readonly parentDevice: string | undefined }> = new Map();
  /** By index, what the kernel has said while a link is being read: where it says nothing more, this is what is so. */
  #saidMeanwhile: Map<number, Link> | undefined;
  #timer: Timer | undefined;
  #retry: Timer | undefined;
  #running: Promise<void> = Promise.resolve();
  #isClosed = false;

  constructor(options: NodeWatchOptions) {
    const { host, pfConfigFile, health } = options;
    this.#options = options;
    this.#refused = health.condition("pf-config-refused");
    this.#rtnl = host.openRtnl(host.netns);
    const onPfChange = () => {
      options.node.survey.hostUseChanged();
      this.#want({ all: true });
    };
    this.#hostUse = new HostUseWatch({ ...options, ...options.node, onPfChange });
    this.#stops = [
      host.uevents.subscribe((event) => this.#heard(event)),
      this.#rtnl.watch(["link"], (event) => this.#linkSaid(event)),
    ];
    const stop = pfConfigFile?.onChange(() => this.#want({ config: true }));
    if (stop) this.#stops.push(stop);
  }

  async start(): Promise<void> {
    this.#todo.links = true;
    await this.#work();
    await this.#hostUse.observe();
    // What happened between the first observation and now.
    this.#want({ all: true, config: true });
  }

  /** What is known was seen to be wrong. */
  rescan(): void {
    this.#want({ all: true });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const stop of this.#stops) stop();
    this.#timer?.cancel();
    this.#retry?.cancel();
    const done = Promise.all([this.#running.finally(() => this.#rtnl.close()), this.#hostUse.close()]);
    const ended = new AbortController();
    const late = this.#options.clock.sleep(STOP_MS, ended.signal).catch(() => {}); // over before
    await Promise.race([done, late]).finally(() => ended.abort());
  }

  #heard({ action, subsystem, devpath }: Uevent): void {
    const { survey, inventory } = this.#options.node;
    const parts = devpath.split("/");
    const isPci = subsystem === "pci";
    const isPf = survey.config.physicalFunctions.some(({ address }) => parts.includes(address));
    const hasMoved = isPci && (action === "add" || action === "remove");
    if (action === "lost" || hasMoved || (isPf && (isPci || subsystem === "net"))) {
      this.#want({ all: true });
      return;
    }
    const address = parts.at(-1) ?? "";
    if (!isPci || !isPciAddress(address) || !inventory.get(address)) return;
    this.#todo.drivers.add(address);
    this.#want({});
  }

  #linkSaid(event: NetlinkEvent): void {
    // What is being read may be older than this event, or the link one that is only just being known.
    if (event.kind === "lost" || this.#saidMeanwhile) this.#want({ links: true });
    if (event.kind !== "new-link") return;
    this.#saidMeanwhile?.set(event.link.index, event.link);
    const known = this.#pfByIndex.get(event.link.index);
    if (!known) return;
    // An index may be another link's by now: then whose links they all are is read again.
    if (known.parentDevice === event.link.parentDevice) this.#options.node.survey.setLink(known.pf, event.link);
    else this.#want({ links: true });
  }

  #want({ all = false, config = false, links = false }): void {
    const todo = this.#todo;
    todo.all ||= all;
    todo.config ||= config;
    todo.links ||= links;
    if (this.#isClosed || this.#timer) return;
    this.#timer = this.#options.clock.after(SETTLE_MS, () => {
      this.#running = this.#running.then(() => this.#work());
    });
  }

  async #work(): Promise<void> {
    this.#timer = undefined;
    const { node, log } = this.#options;
    const { all, config, links } = this.#todo;
    const drivers = [...this.#todo.drivers];
    Object.assign(this.#todo, { all: false, config: false, links: false });
    this.#todo.drivers.clear();
    try {
      const isOther = config && (await this.#readConfig());
      if (all || isOther) await node.survey.observe();
      if (all || isOther) this.#hostUse.want();
      for (const address of drivers) {
        const driver = await node.binder.driverOf(address);
        if (node.inventory.get(address)) node.inventory.setDriver(address, driver);
      }
      if (all || isOther || links) await this.#readLinks();
      node.survey.judge();
      if (node.survey.isWaiting) this.#observeLater();
    } catch (error) {
      log.error("node-not-observed", { error: String(error) });
    }
  }

  #observeLater(): void {
    if (this.#isClosed || this.#retry) return;
    this.#retry = this.#options.clock.after(RETRY_MS, () => {
      this.#retry = undefined;
      this.#want({ all: true });
    });
  }

  async #readLinks(): Promise<void> {
    const { node, host, log } = this.#options;
    const { survey } = node;
    const found = new Map<number, { readonly pf: PciAddress; readonly parentDevice: string | undefined }>();
    const place = { netns: host.netns, rtnl: this.#rtnl };
    try {
      for (const pf of survey.pfs.keys()) {
        const said = new Map<number, Link>();
        this.#saidMeanwhile = said;
        const link = await host.pfLink(place, pf).catch((error: unknown) => {
          log.warn("pf-link-unknown", { pf, error: String(error) });
          this.#want({ all: true });
          return undefined;
        });
        if (!link) continue;
        found.set(link.index, { pf, parentDevice: link.parentDevice });
        const newer = said.get(link.index);
        survey.setLink(pf, newer && newer.parentDevice === link.parentDevice ? newer : link);
      }
      this.#pfByIndex = found;
    } finally {
      this.#saidMeanwhile = undefined;
    }
  }

  /** Whether there is another list now, and a good one. */
  async #readConfig(): Promise<boolean> {
    const { node, pfConfigFile: file, log } = this.#options;
    if (!file) return false;
    try {
      const config = parsePfConfig(await file.read(), file.path);
      this.#refused.clear();
      if (JSON.stringify(config) === JSON.stringify(node.survey.config)) return false;
      node.survey.reconfigure(config);
      log.info("pf-config-applied", { file: file.path, pfs: config.physicalFunctions.length });
      return true;
    } catch (error) {
      const why = messageOf(error);
      const kind = error instanceof PfConfigError ? "wrong" : "unreadable";
      log.error("pf-config-refused", { file: file.path, kind, why });
      this.#refused.raise(`${why}\nWhat it said before stays in force`);
      return false;
    }
  }
}
