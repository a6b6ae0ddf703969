import type { Clock } from "../async/index.ts";
import type { PciAddress } from "./address.ts";
import { PfError } from "./pf-fault.ts";

/** Sysfs answers from memory; a driver that holds a lock for its firmware does not. */
const READ_LIMIT_MS = 10_000;

/**
 * Reads of PFs, each for itself: a read that hangs cannot be cancelled, keeps one of Node's few threads, and must hold up no other PF.
 * Nothing more is read of its PF before it has answered.
 */
export class PfReadings {
  readonly #clock: Clock;
  readonly #onAnswered: () => void;
  readonly #hanging = new Set<PciAddress>();

  /** @param onAnswered a read that had taken too long has ended: another one may be tried. */
  constructor(clock: Clock, onAnswered: () => void = () => {}) {
    this.#clock = clock;
    this.#onAnswered = onAnswered;
  }

  /** @throws {PfError} unreadable, while a read of this PF hangs; what `read` throws. */
  async of<T>(pf: PciAddress, read: () => Promise<T>): Promise<T> {
    if (this.#hanging.has(pf)) throw unanswered(pf);
    const late = Promise.withResolvers<never>();
    const timer = this.#clock.after(READ_LIMIT_MS, () => {
      this.#hanging.add(pf);
      late.reject(unanswered(pf));
    });
    const ended = () => {
      timer.cancel();
      if (this.#hanging.delete(pf)) this.#onAnswered();
    };
    const reading = read();
    reading.then(ended, ended);
    return await Promise.race([reading, late.promise]);
  }
}

function unanswered(pf: PciAddress): PfError {
  const problem = `the kernel has not answered a read of its files within ${READ_LIMIT_MS / 1000} s`;
  return new PfError(
    "unreadable",
    `Cannot use ${pf}: ${problem}; look in the kernel's log for what its driver waits for`,
  );
}
