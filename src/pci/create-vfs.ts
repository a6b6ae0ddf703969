import type { Clock } from "../async/index.ts";
import { type HostFiles, KernelError, type UeventSource } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { PhysicalFunction } from "./discover.ts";
import type { PfEntry } from "./pf-config-form.ts";
import { PfError } from "./pf-fault.ts";
import { virtualFunctionLinks } from "./read-sysfs.ts";
import { isAbout, waitForUevent } from "./uevent-wait.ts";

/** For the write. ixgbe was seen to need more than one minute for its 63. */
const CREATE_LIMIT_MS = 300_000;
/** For the VFs to appear after the write. */
const APPEAR_LIMIT_MS = 30_000;

/** Where to make virtual functions. */
interface CreateVfsOptions {
  readonly devices: HostFiles;
  readonly uevents: UeventSource;
  readonly clock: Clock;
  readonly log: Log;
  /** Gives up the wait for them; what the driver has begun continues. */
  readonly signal?: AbortSignal;
}

/** How many virtual functions a physical one is to have: as many as configured, else all. */
export function desiredVfs({ entry, totalVfs }: Pick<PhysicalFunction, "entry" | "totalVfs">): number {
  return Math.min(entry.numVfs ?? totalVfs, totalVfs);
}

/**
 * Makes the virtual functions of a physical one that was observed without any, and waits until all are there. Where an operator
 * has made some since, their number stays: to change it would take the VFs of running clients away.
 * @throws {PfError} creation-failed, creation-stuck; {KernelError} when it cannot be read; the signal's reason.
 */
export async function createVfs(
  pf: Pick<PhysicalFunction, "address" | "entry" | "totalVfs">,
  options: CreateVfsOptions,
): Promise<void> {
  const { address, entry } = pf;
  const { devices, clock, log } = options;
  const desired = desiredVfs(pf);
  // The kernel refuses to change a number as well (sriov_numvfs_store, drivers/pci/iov.c): EBUSY.
  if (Number(await devices.readText(`${address}/sriov_numvfs`)) > 0) return;
  const startedAt = clock.monotonicMs();
  await writeCount(entry, desired, options);
  const made = await waitForUevent(
    {
      what: `${desired} virtual functions of ${address}`,
      observe: async () => ((await virtualFunctionLinks(devices, address)).length >= desired ? desired : undefined),
      concerns: (event) => event.subsystem === "pci" || isAbout(event, address),
      limitMs: APPEAR_LIMIT_MS,
      signal: options.signal,
    },
    options,
  );
  if (made === undefined) {
    throw new PfError(
      "creation-failed",
      `Cannot use ${address}: asked for ${desired} virtual functions, not all appeared`,
    );
  }
  log.info("vfs-created", { pf: address, count: desired, tookMs: Math.round(clock.monotonicMs() - startedAt) });
}

async function writeCount({ address }: PfEntry, desired: number, options: CreateVfsOptions): Promise<void> {
  try {
    await options.devices.writeText(`${address}/sriov_numvfs`, String(desired), {
      limitMs: CREATE_LIMIT_MS,
    });
  } catch (error) {
    const code = error instanceof KernelError ? error.code : String(error);
    const what = `Cannot make ${desired} virtual functions of ${address}`;
    if (code === "ETIMEDOUT") {
      throw new PfError("creation-stuck", `${what}: the driver does not finish`, { cause: error });
    }
    const hint = hints[code];
    throw new PfError("creation-failed", `${what}: the kernel says ${code}${hint ? `; ${hint}` : ""}`, {
      cause: error,
    });
  }
}

/** sriov_numvfs_store and its drivers: what these codes mean there. */
const hints: Readonly<Record<string, string>> = {
  ENOENT: "no driver of the physical function makes them: load it, or configure fewer VFs",
  ERANGE: "that is more than the hardware has: set numVfs",
  ENOSPC: "the firmware reserved too few PCI resources: set numVfs lower, or turn SR-IOV on in the BIOS",
  ENOMEM: "the firmware reserved too few PCI resources: set numVfs lower, or turn SR-IOV on in the BIOS",
  EBUSY: "another process is changing their number",
};
