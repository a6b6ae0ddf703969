// A VF back from its client for the same client, or where none has had it: without a new device, if there is a way.
import type { VfRecord } from "../../inventory/index.ts";
import { isNotCleared, type NetdevAttachment, NetdevError, type NotRestored } from "../../netdev/index.ts";
import type { DriverBinder } from "../../pci/index.ts";

/** Returns its link to the host, as it was there. @throws {Error} that names what resisted first; it can be called again for that. */
export async function detachVf(binder: DriverBinder, vf: VfRecord, netdev: NetdevAttachment): Promise<void> {
  const resisting = await netdev.detach();
  const isRenewalDue = resisting.some(({ error }) => isNotCleared(error));
  const failures = isRenewalDue ? await detachByDriver(binder, vf, netdev) : resisting;
  const [failure] = failures;
  const errors = failures.map(({ error }) => error);
  if (!failure || (await isDestroyed(binder, vf, errors))) return;
  const { what, error } = failure;
  throw new Error(`Cannot restore ${vf.address}: ${what}: ${String(error)}`, { cause: error });
}

/** Its pod has made more on it than can be removed in time. The driver takes it away, from wherever it is. */
async function detachByDriver(
  binder: DriverBinder,
  vf: VfRecord,
  netdev: NetdevAttachment,
): Promise<readonly NotRestored[]> {
  await binder.renew(vf);
  await binder.netdevOf(vf.address);
  return await netdev.detach({ isRenewed: true });
}

/** The device went with its driver or its VF: there is nothing to restore, or a new device that was never away. */
async function isDestroyed(
  binder: DriverBinder,
  { address, kernelDriver }: VfRecord,
  errors: readonly unknown[],
): Promise<boolean> {
  if (!(await binder.isPresent(address))) return true;
  if (!errors.every((error) => error instanceof NetdevError && error.fault.kind === "gone")) return false;
  if ((await binder.driverOf(address)) !== kernelDriver) return true;
  return (await binder.netdevNow(address)) !== undefined;
}
