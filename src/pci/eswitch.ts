// Whether a PF forwards by itself, or waits for a switch on the node to say how: before that its VFs reach nothing.
import type { Clock } from "../async/index.ts";
import type { EswitchMode, HostFiles } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { PciAddress } from "./address.ts";
import { netdevNames, ownNetdevs } from "./read-sysfs.ts";

/** Queries the kernel (devlink). Undefined: it does not say. */
export type QueryEswitchMode = (pf: PciAddress) => Promise<EswitchMode | undefined>;

export interface EswitchOptions {
  /** /sys/bus/pci/devices */
  readonly devices: HostFiles;
  readonly queryEswitchMode?: QueryEswitchMode | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

/** devlink answers at once, but behind a driver that writes its firmware, which takes minutes. */
const ANSWER_MS = 2_000;

/**
 * The mode as the kernel says it. Where it does not (an older one, a driver without devlink, no privilege), representors decide:
 * a driver makes them in switchdev mode only (Documentation/networking/representors.rst).
 */
export async function eswitchModeOf(pf: PciAddress, options: EswitchOptions): Promise<EswitchMode> {
  const reported = await query(pf, options);
  if (reported !== undefined) return reported;
  const { devices } = options;
  const representors = (await netdevNames(devices, pf)).length - (await ownNetdevs(devices, pf)).length;
  return representors > 0 ? "switchdev" : "legacy";
}

async function query(
  pf: PciAddress,
  { queryEswitchMode, clock, log }: EswitchOptions,
): Promise<EswitchMode | undefined> {
  if (!queryEswitchMode) return undefined;
  const answered = new AbortController();
  const tooLong = clock.sleep(ANSWER_MS, answered.signal).then(
    () => Promise.reject(new Error(`no answer within ${ANSWER_MS} ms`)),
    () => undefined,
  );
  try {
    return await Promise.race([queryEswitchMode(pf), tooLong]);
  } catch (error) {
    log.warn("eswitch-mode-unknown", { pf, error: String(error) });
    return undefined;
  } finally {
    answered.abort();
  }
}

/** What is wrong with a PF in switchdev mode, and what to do. */
export function switchdevProblem(pf: PciAddress): string {
  return `physical function ${pf} is in switchdev mode: its VFs reach only what a switch on this node lets them reach, and have no VLAN of the PF; when no pod has one, run: devlink dev eswitch set pci/${pf} mode legacy`;
}
