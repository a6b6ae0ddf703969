// Functions that the kernel puts home because the namespace that had them has ended.
import type { Uevent, UeventSource } from "./kernel/index.ts";
import type { Recovered } from "./recover.ts";
import type { DriverBinder, Inventory, PciAddress } from "./sriov/index.ts";
import type { Log } from "./telemetry/index.ts";

export interface ReturnsOptions {
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  readonly left: Pick<Recovered, "unmet" | "hidden">;
  readonly uevents: UeventSource;
  endConnection(connectionId: string): Promise<void>;
  readonly log: Log;
}

/** Watches for what returns, until its client has come back. Returns how to stop. */
export function watchReturns({ inventory, binder, left, uevents, endConnection, log }: ReturnsOptions): () => void {
  const { unmet, hidden } = left;
  const look = async (address: PciAddress) => {
    if (!(await binder.netdevNow(address).catch(() => undefined))) return;
    log.info("vf-returned", { vf: address });
    if (hidden.delete(address)) return inventory.restore(address);
    const connectionId = unmet.get(address)?.connectionId;
    if (connectionId !== undefined) await endConnection(connectionId);
  };
  const concerns = (event: Uevent, address: string) =>
    event.action === "lost" || (event.subsystem === "net" && event.devpath.split("/").includes(address));
  const lookAt = (event: Uevent) => {
    for (const address of [...hidden, ...unmet.keys()]) if (concerns(event, address)) void look(address);
  };
  const stop = uevents.subscribe(lookAt);
  // What returned before this was watching.
  for (const address of [...hidden, ...unmet.keys()]) void look(address);
  return stop;
}
