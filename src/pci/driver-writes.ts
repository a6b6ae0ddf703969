import { type HostFiles, KernelError } from "../kernel/index.ts";
import type { PciAddress } from "./address.ts";
import { DriverError } from "./driver-fault.ts";

/** By default, for one write. */
const WRITE_LIMIT_MS = 10_000;

/** Writes to sysfs that change drivers. One that hangs holds a kernel lock, and each behind it would hang too, and hold a thread. */
export class DriverWrites {
  readonly #limitMs: number;
  /** VFs with a write that was given up and has not returned. */
  readonly #stuck = new Set<PciAddress>();

  constructor(limitMs = WRITE_LIMIT_MS) {
    this.#limitMs = limitMs;
  }

  /** Whether a write for the VF hangs. It may still take effect. */
  isStuck(address: PciAddress): boolean {
    return this.#stuck.has(address);
  }

  /** @throws {KernelError} ETIMEDOUT when it hangs. */
  async write(
    address: PciAddress,
    files: HostFiles,
    [path, text]: readonly [path: string, text: string],
  ): Promise<void> {
    let hasReturned = false;
    const onLateReturn = () => {
      hasReturned = true;
      this.#stuck.delete(address);
    };
    try {
      await files.writeText(path, text, { limitMs: this.#limitMs, onLateReturn });
    } catch (error) {
      if (isTimeout(error) && !hasReturned) this.#stuck.add(address);
      throw error;
    }
  }
}

/** Whether a write was given up. */
export function isTimeout(error: unknown): boolean {
  return error instanceof KernelError && error.code === "ETIMEDOUT";
}

/** What kept the driver from being bound. */
export function driverErrorOf(error: unknown, address: PciAddress, driver: string): DriverError {
  if (error instanceof DriverError) return error;
  if (isTimeout(error)) return new DriverError(address, { kind: "write-stuck", driver }, { cause: error });
  const code = error instanceof KernelError ? error.code : String(error);
  return new DriverError(address, { kind: "bind-refused", driver, code }, { cause: error });
}
