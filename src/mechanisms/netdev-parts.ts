// A VF as netdev knows one, whatever its driver makes of it meanwhile.
import type { VfRecord } from "../inventory/index.ts";
import type { HostLinks, VfLink } from "../netdev/index.ts";
import type { PfDoor } from "../node/index.ts";
import { type DriverBinder, DriverError, type PciAddress } from "../pci/index.ts";

/** How netdev gets to know VFs. */
export interface VfLinkParts {
  readonly links: HostLinks;
  readonly binder: DriverBinder;
  readonly pfDoor: (pf: PciAddress) => PfDoor;
}

/** What an attachment of the VF needs of the node. @throws {Error} when its PF was never usable. */
export function netdevPartsOf({ links, binder, pfDoor }: VfLinkParts, vf: VfRecord) {
  const { address, pf, index } = vf;
  return { links, address, vf: { ...pfDoor(pf), index }, vfLink: vfLinkOf(binder, vf, links.settings?.boot) };
}

/** Where the VF's device is in the host's namespace, whatever its name and index. `boot` of the machine: undefined where none is known. */
export function vfLinkOf(binder: DriverBinder, { address, kernelDriver }: VfRecord, boot: string | undefined): VfLink {
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
    async device() {
      const instance = boot === undefined ? undefined : await binder.instanceOf(address);
      return instance === undefined ? undefined : `${boot}/${instance}`;
    },
  };
}
