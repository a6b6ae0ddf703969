// Functions that failed a connection: nobody gets them for a while.
import type { Clock, Timer } from "../async/index.ts";
import { DriverError, type Inventory, type PciAddress, type VfRecord } from "../sriov/index.ts";
import type { Log } from "../telemetry/index.ts";

/** After so long a function that was left out gets another chance. */
const PROBLEM_MS = 30_000;

/** Functions that are left out for a while. */
export class LeftOutVfs {
  readonly #parts: { readonly inventory: Inventory; readonly clock: Clock; readonly log: Log };
  readonly #timers = new Map<PciAddress, Timer>();

  constructor(parts: { readonly inventory: Inventory; readonly clock: Clock; readonly log: Log }) {
    this.#parts = parts;
  }

  /** It could not be had: it is unhealthy until its time is over. */
  leaveOut(address: PciAddress, problem: string): void {
    const { inventory, clock } = this.#parts;
    inventory.setProblem(address, problem);
    this.#timers.get(address)?.cancel(); // of an earlier failure: the time counts from the last one
    const timer = clock.after(PROBLEM_MS, () => {
      this.#timers.delete(address);
      // What somebody else has said of it meanwhile is not ours to take back.
      if (inventory.get(address)?.problem === problem) inventory.setProblem(address, undefined);
    });
    this.#timers.set(address, timer);
  }

  /** It is kept back while its driver is being bound, for nobody any more; what comes of that decides. */
  awaitDriver(address: PciAddress, binding: Promise<unknown>): void {
    const { inventory, log } = this.#parts;
    const isGone = () => inventory.get(address) === undefined;
    const served = () => {
      if (isGone()) return;
      inventory.restore(address);
      log.info("vf-restored", { vf: address, driver: inventory.get(address)?.driver });
    };
    binding.then(served, (error: unknown) => {
      if (isGone()) return;
      inventory.restore(address); // The first reason would stand: this one tells more.
      if (error instanceof DriverError && error.fault.kind === "write-stuck") this.setAside(address, error.message);
      else this.leaveOut(address, error instanceof Error ? error.message : String(error));
    });
  }

  /**
   * The kernel still holds a write on it: nobody gets it before that has returned and its driver serves it again, which
   * the inventory hears of from the kernel's events. Or for another reason, until `isSound` says that it is over.
   */
  setAside(address: PciAddress, why: string, isSound = this.#isServed): void {
    const { inventory, clock, log } = this.#parts;
    inventory.quarantine(address, why);
    const look = async () => {
      const vf = inventory.get(address);
      if (!vf) return;
      if (!(await isSound(vf).catch(() => false))) {
        clock.after(PROBLEM_MS, () => void look());
        return;
      }
      inventory.restore(address);
      log.info("vf-restored", { vf: address, driver: vf.driver });
    };
    clock.after(PROBLEM_MS, () => void look());
  }

  readonly #isServed = async ({ driver, kernelDriver }: VfRecord): Promise<boolean> => driver === kernelDriver;
}
