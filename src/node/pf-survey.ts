// What the node has of the configured PFs, now and at each later observation, as the inventory and the operator get it.
import type { Clock } from "../async/index.ts";
import type { Inventory, VfConditionOf, VfRecord } from "../inventory/index.ts";
import type { LinkPlace } from "../kernel/index.ts";
import { inSession, type PfPort, type VfSettings } from "../netdev/index.ts";
import {
  type Discovery,
  discover,
  type PciAddress,
  type PfConfig,
  type PfFault,
  PfReadings,
  type PhysicalFunction,
  switchdevProblem,
} from "../pci/index.ts";
import type { Health, Log } from "../telemetry/index.ts";
import type { Host } from "./host.ts";
import { PfCarriers } from "./pf-carriers.ts";
import { PfClaims } from "./pf-claims.ts";
import { PfHealth } from "./pf-health.ts";
import { PfsWithoutVfs } from "./pfs-without-vfs.ts";

/** The PF of a VF, as far as its clients' settings go. */
export interface PfDoor {
  readonly port: PfPort;
  /** What the operator wants of every VF. */
  readonly settings: VfSettings;
}

export interface PfSurveyOptions {
  readonly pfConfig: PfConfig;
  readonly host: Host;
  readonly inventory: Inventory;
  /** Why no VFs may be made on a PF for the host's sake; undefined when they may. */
  readonly refuseCreation: (pf: PhysicalFunction) => Promise<string | undefined>;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Log;
}

/** What the survey raises on VFs, and clears. */
const judged = ["pf-unusable", "pf-not-managed", "driver-taken", "pf-in-switchdev-mode", "pf-without-carrier"] as const;
type JudgedCondition = VfConditionOf<(typeof judged)[number]>;

/**
 * Observes the node as often as requested, one observation at a time. None changes anything: VFs that are to be made are
 * requested beside it (pfs-without-vfs.ts), and seen by the next observation.
 */
export class PfSurvey {
  readonly #options: PfSurveyOptions;
  readonly #health: PfHealth;
  readonly #claims: PfClaims;
  #config: PfConfig;
  #ours: PfConfig = { physicalFunctions: [] };
  readonly #pfs = new Map<PciAddress, PhysicalFunction>();
  readonly #doors = new Map<PciAddress, PfDoor>();
  /** Why a PF cannot be used. */
  readonly #faults = new Map<PciAddress, PfFault>();
  readonly #creation: PfsWithoutVfs;
  readonly #readings: PfReadings;
  #isClosed = false;
  #turn: Promise<void> = Promise.resolve();
  readonly #carriers = new PfCarriers();
  readonly #notes = new Set<string>();

  constructor(options: PfSurveyOptions) {
    this.#options = options;
    this.#config = options.pfConfig;
    this.#claims = new PfClaims({ ...options, locks: options.host.locks });
    this.#health = new PfHealth(options.health);
    this.#readings = new PfReadings(options.clock, () => this.#isClosed || void this.observe());
    this.#creation = new PfsWithoutVfs({
      ...options,
      withoutVfs: this.#health.withoutVfs,
      bringUp: (pf) => withRtnl(options.host, (place) => bringUp(options.host, place, pf)),
      refuse: options.refuseCreation,
      onAnswered: () => void this.observe(),
    });
  }

  get config(): PfConfig {
    return this.#config;
  }

  /** The part of the list that no other process has, as of the latest observation. */
  get ours(): PfConfig {
    return this.#ours;
  }

  /** Those that can be used. */
  get pfs(): ReadonlyMap<PciAddress, PhysicalFunction> {
    return this.#pfs;
  }

  /** Whether there is a signal on the wire, as far as the kernel has said. */
  carrierOf(pf: PciAddress): "up" | "down" | "unknown" {
    return this.#carriers.of(pf);
  }

  /** Why a PF cannot be used, or what is wrong with it; undefined when it is well. */
  problemOf(pf: PciAddress): string | undefined {
    const own = this.#faults.get(pf)?.message ?? this.#creation.problemOf(pf) ?? this.#pfProblem(pf);
    return this.#claims.problemOf(pf) ?? own;
  }

  /** Whether another process has a PF of the list: only another read can show that it has ended. */
  get isWaiting(): boolean {
    return this.#claims.isWaiting;
  }

  /** Waits for no driver any more, and leaves the PFs to others. */
  close(): void {
    this.#isClosed = true;
    this.#creation.close();
    this.#claims.close();
  }

  /** Why PFs cannot be used, a sentence each. */
  get refusals(): readonly string[] {
    return [...this.#faults.values()].map(({ message }) => message);
  }

  /** The way to the settings of VFs; also of a PF that has gone since, for who cleans up. */
  door(pf: PciAddress): PfDoor {
    const door = this.#doors.get(pf);
    if (!door) throw new Error(`Cannot reach the settings of physical function ${pf}: it was never usable`);
    return door;
  }

  /** Manages other PFs from the next observation on. */
  reconfigure(config: PfConfig): void {
    this.#config = config;
    this.#creation.hostUseChanged(); // it may be allowed now
  }

  /** The host uses PFs otherwise than before: the next observation requests VFs where none could be made. */
  hostUseChanged(): void {
    this.#creation.hostUseChanged();
  }

  /** Reads the node for the first time. @throws the signal's reason. */
  async begin(signal?: AbortSignal): Promise<void> {
    try {
      await this.#claims.awaitDying(this.#config, this.#options.clock, signal);
    } catch (error) {
      this.close();
      throw error;
    }
    await this.observe();
  }

  /** Reads the node again. Never throws: what cannot be used is reported and left out. */
  observe(): Promise<void> {
    const observed = this.#turn.then(async () => {
      this.#takeOver(await this.#observe());
      this.judge();
    });
    this.#turn = observed.catch(() => {}); // the caller's
    return observed;
  }

  async #observe(): Promise<Discovery> {
    const { host, clock, log } = this.#options;
    const config = this.#claims.ours(this.#config);
    this.#ours = config;
    const queryEswitchMode = (pf: PciAddress) => host.queryEswitchMode(pf);
    return await withRtnl(host, (place) => {
      const verifyLink = (pf: PciAddress) => host.pfLink(place, pf);
      return discover(config, { ...host, verifyLink, queryEswitchMode, readings: this.#readings, clock, log });
    });
  }

  /** Says how the link of a PF is. */
  setLink(pf: PciAddress, link: { readonly up: boolean; readonly carrier: boolean }): void {
    const carrier = this.#carriers.set(pf, link);
    if (carrier === undefined) return;
    this.#options.log.info("pf-carrier", { pf, carrier, ...(!link.up && { isDown: true }) });
    this.judge();
  }

  /** Raises and clears what is wrong with PFs, and with each VF by its PF or its driver. */
  judge(): void {
    const { inventory } = this.#options;
    for (const [address, { eswitchMode }] of this.#pfs) {
      this.#health.judge(address, eswitchMode === "switchdev", this.#linkProblem(address));
    }
    for (const vf of inventory.snapshot()) {
      const found = this.#conditionsOf(vf);
      for (const code of judged) if (!found.some((one) => one.code === code)) inventory.clear(vf.address, code);
      for (const condition of found) inventory.raise(vf.address, condition);
    }
  }

  #conditionsOf(vf: VfRecord): readonly JudgedCondition[] {
    if (!this.#pfs.has(vf.pf)) {
      const fault = this.#faults.get(vf.pf);
      return [fault ? { code: "pf-unusable", error: fault.message } : { code: "pf-not-managed" }];
    }
    const isTaken = vf.state === "ready" && vf.use !== undefined && vf.driverUse !== vf.use;
    const problem = this.#linkProblem(vf.pf);
    return [
      ...(isTaken ? [{ code: "driver-taken", driver: vf.driver } as const] : []),
      ...(this.#pfs.get(vf.pf)?.eswitchMode === "switchdev"
        ? [{ code: "pf-in-switchdev-mode", error: switchdevProblem(vf.pf) } as const]
        : []),
      ...(problem === undefined ? [] : [{ code: "pf-without-carrier", error: problem } as const]),
    ];
  }

  /** What is wrong with a usable one, and with its VFs by it. */
  #pfProblem(pf: PciAddress): string | undefined {
    if (this.#pfs.get(pf)?.eswitchMode === "switchdev") return switchdevProblem(pf);
    return this.#linkProblem(pf);
  }

  #linkProblem(pf: PciAddress): string | undefined {
    const found = this.#pfs.get(pf);
    return found && this.#carriers.problemOf(found);
  }

  #takeOver({ pfs: observed, faults: unusable, notes }: Discovery): void {
    const { host, inventory, log } = this.#options;
    const gone = new Set([...this.#pfs.keys(), ...this.#faults.keys()]);
    const judged = observed.map((pf) => this.#creation.judge(pf));
    const pfs = judged.filter((one) => "vfs" in one);
    const faults = [...unusable, ...judged.filter((one) => "kind" in one)];
    for (const pf of pfs) {
      const { address, ifname, driver, vfs, entry } = pf;
      gone.delete(address);
      const before = this.#pfs.get(address);
      if (before?.vfs.length !== vfs.length) log.info("pf-found", { pf: address, ifname, driver, vfs: vfs.length });
      this.#pfs.set(address, pf);
      this.#doors.set(address, { port: host.pfPort({ address, ifname, driver }), settings: entry.settings });
      if (this.#faults.delete(address)) this.#health.mend(address);
      inventory.sync(address, vfs);
    }
    for (const fault of faults) {
      gone.delete(fault.address);
      this.#leaveOut(fault);
    }
    for (const address of gone) {
      this.#pfs.delete(address);
      this.#creation.forget(address);
      this.#carriers.forget(address);
      this.#faults.delete(address);
      this.#health.clear(address);
      inventory.sync(address, []);
      log.info("pf-not-managed", { pf: address });
    }
    this.#logNotes(pfs, notes);
  }

  #logNotes(pfs: Discovery["pfs"], notes: Discovery["notes"]): void {
    for (const { address } of pfs) {
      const note = notes.find((one) => one.address === address && one.kind === "vf-driver-missing");
      this.#health.setDriver(address, note?.message);
    }
    for (const { address, kind, message } of notes) {
      if (!this.#notes.has(message)) this.#options.log.warn(kind, { pf: address, note: message });
      this.#notes.add(message);
    }
  }

  #leaveOut(fault: PfFault): void {
    const { inventory, log } = this.#options;
    const { address } = fault;
    if (this.#faults.get(address)?.message !== fault.message) {
      log.error("pf-unusable", { pf: address, error: fault.message });
    }
    this.#faults.set(address, fault);
    this.#health.fail(fault);
    this.#pfs.delete(address);
    this.#carriers.forget(address);
    if (fault.kind === "missing" || fault.kind === "no-driver") this.#creation.forget(address);
    // With the others its VFs may be there still, and with clients.
    if (fault.kind === "missing") inventory.sync(address, []);
  }
}

/** Over a socket of the host's namespace of its own. */
function withRtnl<T>(host: Host, work: (place: LinkPlace) => Promise<T>): Promise<T> {
  return inSession(host.netns, work, (netns) => host.openRtnl(netns));
}

/** Some drivers give VFs no address as long as their PF is down. */
async function bringUp(host: Host, place: LinkPlace, pf: PciAddress): Promise<void> {
  const link = await host.pfLink(place, pf);
  if (link && !link.up) await place.rtnl.setLink(link.index, { up: true });
}
