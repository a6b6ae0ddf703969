// Functions of the journal whose physical function comes after our start: a driver that is loaded late, an adapter that is
// put in again, an entry that returns to the configuration.
import type { JournalEntry } from "../nsm/index.ts";
import type { DriverBinder, Inventory } from "../sriov/index.ts";
import type { Log } from "../telemetry/index.ts";
import { type Recovered, settleKept } from "./recover.ts";
import type { KeptFunction } from "./take-up.ts";

export interface LateFunctionsOptions {
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  readonly left: Recovered;
  /** Goes on with a connection; told to the service. */
  adopt(entry: JournalEntry): void;
  readonly log: Log;
}

/** Takes each up when the inventory has it, before anybody can get it. Returns how to stop. */
export function watchLateFunctions(options: LateFunctionsOptions): () => void {
  const { inventory, left } = options;
  const look = () => {
    for (const [address, kept] of left.late) {
      if (!inventory.get(address)) continue;
      left.late.delete(address);
      // At once: the next call may want it, and kubelet may be told of it.
      inventory.raise(address, { code: "late-unsettled", connectionId: kept.vf.connectionId });
      void takeUpLate(options, kept);
    }
  };
  const stop = inventory.onChange(look);
  look(); // What came since the recovery.
  return stop;
}

async function takeUpLate(options: LateFunctionsOptions, kept: KeptFunction): Promise<void> {
  const { left, adopt, log } = options;
  const entry = await settleKept(options, left, kept);
  if (!entry) return;
  log.info("vf-came-late", { vf: kept.vf.address, connection: kept.vf.connectionId, stage: entry.stage });
  adopt(entry);
}
