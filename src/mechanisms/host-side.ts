// What the host had set of a VF's network device, kept while VFIO has the VF: its driver takes the device away for that.
import type { Inventory } from "../inventory/index.ts";
import { chosenMac, isOtherDevice, NO_MAC, readHostSide } from "../netdev/index.ts";
import type { PciAddress } from "../pci/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { VfJournal } from "./connection-journal.ts";
import { netdevPartsOf, type VfLinkParts } from "./netdev-parts.ts";

interface HostSideParts extends VfLinkParts {
  readonly inventory: Pick<Inventory, "get">;
  readonly journal: Pick<VfJournal, "unrestored">;
  readonly log: Log;
}

/**
 * To be called right before the kernel driver of a VF lets go of it. On disk on return, until the VF's device is so again: after the
 * next client that has it as a network device, or when the host binds the driver.
 * @throws {NetdevError | KernelError | JournalError} the device cannot be read, or that not be kept.
 */
export async function keepHostSide(parts: HostSideParts, address: PciAddress): Promise<void> {
  const { inventory, journal, binder, links, log } = parts;
  const { unrestored } = journal;
  const [vf, netdev] = [inventory.get(address), await binder.netdevNow(address)];
  if (!vf || !netdev) return;
  const leaving = { ...netdevPartsOf(parts, vf), ifindex: netdev.ifindex, log: log.with({ vf: address }) };
  const known = unrestored.beforeOf(address);
  const boot = links.settings && { boot: links.settings.boot };
  // What the first tenant's was like, where the device is not so yet.
  if (!known || (await isOtherDevice(leaving.vfLink, known.state))) {
    unrestored.forget(address);
    await unrestored.keep(address, { before: { state: await readHostSide(links, leaving) }, ...boot });
  }
  // On disk first: the address of the link is changed for a moment.
  const chosen = (await chosenMac(links, leaving)) ?? NO_MAC;
  await unrestored.keep(address, { isNewNeeded: false, chosenMac: chosen, ...boot });
}
