// VFs that failed a connection: given to no client for a while, or until what was wrong is over.
import { type Clock, messageOf } from "../async/index.ts";
import type { Inventory, VfCondition, VfRecord } from "../inventory/index.ts";
import { type DriverBinder, DriverError, type PciAddress } from "../pci/index.ts";
import type { Log } from "../telemetry/index.ts";

interface LeftOutParts {
  readonly inventory: Inventory;
  readonly binder: Pick<DriverBinder, "hasStuckWrite">;
  readonly clock: Clock;
  readonly log: Log;
}

/** After so long a VF that failed gets another chance, or is observed again. */
const PAUSE_MS = 30_000;

/** VFs that are left out for a while. */
export class LeftOutVfs {
  readonly #parts: LeftOutParts;

  constructor(parts: LeftOutParts) {
    this.#parts = parts;
  }

  /** It could not be had: it is unhealthy until its time is over, which counts from the last failure. */
  leaveOut(address: PciAddress, error: string): void {
    const { inventory, clock } = this.#parts;
    const failed: VfCondition = { code: "bind-failed", error };
    inventory.raise(address, failed);
    clock.after(PAUSE_MS, () => inventory.clear(address, failed));
  }

  /** It is quarantined while its driver is being bound, for no Request any more; what comes of that decides. */
  awaitDriver(address: PciAddress, binding: Promise<unknown>): void {
    const { inventory, log } = this.#parts;
    const over = () => inventory.clear(address, "driver-binding");
    binding.then(
      () => {
        if (over()) log.info("vf-restored", { vf: address, driver: inventory.get(address)?.driver });
      },
      (error: unknown) => {
        if (error instanceof DriverError && error.fault.kind === "write-stuck") {
          this.setAside(address, { code: "write-stuck", error: error.message });
        } else this.leaveOut(address, messageOf(error));
        over();
      },
    );
  }

  /**
   * The kernel still holds a write on it: no client gets it before that has returned and a driver has it; without one the reconciler
   * binds it again. Or for another reason, until `isSound` says that it is over.
   */
  setAside(address: PciAddress, condition: VfCondition, isSound = this.#isWriteOver): void {
    const { inventory, clock, log } = this.#parts;
    inventory.raise(address, condition);
    const observe = async () => {
      const vf = inventory.get(address);
      // It is gone, or the same has been found again since: that one is watched for itself.
      if (!vf?.conditions.includes(condition)) return;
      if (!(await isSound(vf).catch(() => false))) clock.after(PAUSE_MS, () => void observe());
      else if (inventory.clear(address, condition)) log.info("vf-restored", { vf: address, driver: vf.driver });
    };
    clock.after(PAUSE_MS, () => void observe());
  }

  readonly #isWriteOver = async ({ address, driver }: VfRecord) =>
    driver !== undefined && !this.#parts.binder.hasStuckWrite(address);
}
