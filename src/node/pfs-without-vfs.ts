// VFs that are to be made: of which PF they are requested, and what became of that. No start and no scan waits for it.
import { type Clock, messageOf } from "../async/index.ts";
import { createVfs, desiredVfs, type PciAddress, PfError, type PfFault, type PhysicalFunction } from "../pci/index.ts";
import type { Condition, Log } from "../telemetry/index.ts";
import type { Host } from "./host.ts";

interface PfsWithoutVfsOptions {
  readonly host: Host;
  /** Raised for each PF that is to have VFs and has none. */
  readonly withoutVfs: Condition;
  /** Some drivers give VFs no address as long as their PF is down. */
  bringUp(pf: PciAddress): Promise<void>;
  /** Why none may be made on it for the host's sake; undefined when they may. */
  refuse(pf: PhysicalFunction): Promise<string | undefined>;
  /** A driver has answered: the node is to be observed again. */
  onAnswered(): void;
  readonly clock: Clock;
  readonly log: Log;
}

/** A request that a driver has not answered yet. */
interface VfRequest {
  readonly ifindex: number | undefined;
  readonly stop: AbortController;
}

/**
 * Requests VFs of the driver of each PF that is observed without any, whenever it came, unless the operator took
 * them away: that is so where the same device, by the index of its netdev, has had some while we observed. A driver that has
 * refused gets another request only when the device comes again.
 */
export class PfsWithoutVfs {
  readonly #options: PfsWithoutVfsOptions;
  readonly #requested = new Map<PciAddress, VfRequest>();
  /** The devices that were seen with VFs. */
  readonly #had = new Map<PciAddress, number | undefined>();
  readonly #refused = new Map<PciAddress, { readonly ifindex: number | undefined; readonly fault: PfFault }>();
  /** Those that the host uses, and why that keeps them from having VFs. */
  readonly #usedByHost = new Map<PciAddress, string>();
  readonly #problems = new Map<PciAddress, string>();
  #isClosed = false;

  constructor(options: PfsWithoutVfsOptions) {
    this.#options = options;
  }

  /** Why it has no VFs, where it is to have some. */
  problemOf(pf: PciAddress): string | undefined {
    return this.#problems.get(pf);
  }

  /** What is to be made of a PF as it was observed: as it is, or why it cannot be used. */
  judge(pf: PhysicalFunction): PhysicalFunction | PfFault {
    const { address, ifindex } = pf;
    const requested = this.#requested.get(address);
    if (requested) {
      // An adapter that was away meanwhile has forgotten the request.
      if (!isSame(requested.ifindex, ifindex)) requested.stop.abort(new Error(`${address} was away`));
      return { ...pf, vfs: [] }; // they are used when all of them are there
    }
    if (pf.vfs.length > 0) {
      this.#had.set(address, ifindex);
      this.#refused.delete(address);
      this.#report(address, undefined);
      return pf;
    }
    const refused = this.#refused.get(address);
    if (refused && isSame(refused.ifindex, ifindex)) return refused.fault;
    if (pf.eswitchMode === "switchdev") {
      // Some drivers change the mode only while there are no VFs: none are made that no client could be given.
      this.#report(address, undefined);
      return pf;
    }
    const why = this.#reasonForNone(pf);
    if (why === "to be made") this.#request(pf);
    else this.#report(address, why);
    return pf;
  }

  /** It is not there, or has no driver: what comes under its address is another one. */
  forget(pf: PciAddress): void {
    this.#requested.get(pf)?.stop.abort(new Error(`${pf} is away`));
    this.#had.delete(pf);
    this.#refused.delete(pf);
    this.#usedByHost.delete(pf);
    this.#report(pf, undefined);
  }

  /** The host uses PFs otherwise than before, or may do so by another configuration. */
  hostUseChanged(): void {
    this.#usedByHost.clear();
  }

  /** Waits for nothing any more. What was requested of a driver continues. */
  close(): void {
    this.#isClosed = true;
    for (const { stop } of this.#requested.values()) stop.abort(new Error("the forwarder stops"));
  }

  #reasonForNone(pf: PhysicalFunction): string {
    const { address, totalVfs, ifindex } = pf;
    if (totalVfs === 0) {
      return `${address} offers no virtual functions: sriov_totalvfs is 0; turn SR-IOV on in the firmware of the card`;
    }
    const usedByHost = this.#usedByHost.get(address);
    if (usedByHost !== undefined) return usedByHost;
    if (!this.#had.has(address) || !isSame(this.#had.get(address), ifindex)) return "to be made";
    return `${address} has no virtual functions any more: their number was set to 0 while the forwarder ran, and it is not changed; to have them again: echo ${desiredVfs(pf)} > /sys/bus/pci/devices/${address}/sriov_numvfs`;
  }

  #request(pf: PhysicalFunction): void {
    const { address, ifindex } = pf;
    const stop = new AbortController();
    this.#requested.set(address, { ifindex, stop });
    this.#report(address, `${address} has no virtual functions: its driver is being asked for ${desiredVfs(pf)}`);
    void this.#make(pf, stop.signal).finally(() => {
      this.#requested.delete(address);
      if (!this.#isClosed) this.#options.onAnswered();
    });
  }

  async #make(pf: PhysicalFunction, signal: AbortSignal): Promise<void> {
    const { host, clock, log, bringUp, refuse } = this.#options;
    const { address, ifindex } = pf;
    try {
      await bringUp(address);
      const refusal = await refuse(pf);
      if (refusal !== undefined) {
        this.#usedByHost.set(address, refusal);
        this.#report(address, refusal);
        return;
      }
      await createVfs(pf, { ...host, clock, log, signal });
      this.#had.set(address, ifindex);
    } catch (error) {
      if (signal.aborted) return;
      const why = messageOf(error);
      const kind = error instanceof PfError ? error.kind : "creation-failed";
      const message = error instanceof PfError ? why : `Cannot make the virtual functions of ${address}: ${why}`;
      this.#refused.set(address, { ifindex, fault: { address, kind, message } });
      this.#report(address, undefined); // the fault says more
    }
  }

  #report(pf: PciAddress, problem: string | undefined): void {
    const { withoutVfs } = this.#options;
    if (problem === undefined) {
      this.#problems.delete(pf);
      withoutVfs.clear(pf);
      return;
    }
    this.#problems.set(pf, problem);
    withoutVfs.raise(problem, pf);
  }
}

/** Whether two observations saw the same device, as far as they say. */
function isSame(a: number | undefined, b: number | undefined): boolean {
  return a === undefined || b === undefined || a === b;
}
