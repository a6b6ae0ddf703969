// The network device of a VF by its PCI function: it stays the same when its driver makes another device.

import type { VfRecord } from "../inventory/index.ts";
import type { VfLink } from "../netdev/index.ts";
import { type DriverBinder, DriverError } from "../pci/index.ts";

/** Where the VF's device is in the host's namespace, whatever its name and index. */
export function vfLinkOf(
  binder: Pick<DriverBinder, "netdevNow" | "driverOf">,
  { address, kernelDriver }: Pick<VfRecord, "address" | "kernelDriver">,
): VfLink {
  return {
    async index() {
      try {
        return (await binder.netdevNow(address))?.ifindex;
      } catch (error) {
        // Several, while one goes and another comes.
        if (error instanceof DriverError) return undefined;
        throw error;
      }
    },
    mayCome: async () => (await binder.driverOf(address)) === kernelDriver,
  };
}
