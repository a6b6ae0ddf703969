import { messageOf } from "../async/index.ts";
import { KernelError, type VfLinkState } from "../kernel/index.ts";
import { NetdevError } from "./error.ts";
import { isTransient, type Patience } from "./transient.ts";

/** What a PF holds about one of its VFs. A setting that is left out is not touched, or not known to the driver. */
export interface VfSettings {
  /** The administrative address; all zero when the PF sets none. */
  readonly mac?: string | undefined;
  /** 0: none. */
  readonly vlan?: number | undefined;
  readonly spoofCheck?: boolean | undefined;
  readonly trust?: boolean | undefined;
  readonly linkState?: VfLinkState | undefined;
  /** 0: no limit. */
  readonly minTxRateMbps?: number | undefined;
  readonly maxTxRateMbps?: number | undefined;
}

/** The VFs of one PF, each by the number N of its `virtfnN`. */
export interface PfPort {
  /** The PF and its driver, for the operator: "0000:3b:00.0 (ens6f0, driver mlx5_core)". */
  readonly pf: string;
  /**
   * Without a value of any setting where the PF reports nothing of its VFs (`reportsNothing`).
   * @throws {KernelError} EAGAIN while its driver does not report this one.
   * @throws {NetdevError} gone.
   */
  read(vfIndex: number): Promise<VfSettings>;
  /** @throws {KernelError} of the first setting that the driver does not take. */
  write(vfIndex: number, change: VfSettings): Promise<void>;
}

/** A setting that could not be made as desired. */
interface SettingFault {
  readonly setting: keyof VfSettings;
  readonly error: NetdevError;
}

// What is written together, in this order. The address first: some drivers reset the VF when it changes. The two rates
// in one: the kernel compares them with each other, so one after the other may be refused on the way.
const GROUPS: readonly (readonly (keyof VfSettings)[])[] = [
  ["mac"],
  ["vlan"],
  ["spoofCheck"],
  ["trust"],
  ["linkState"],
  ["minTxRateMbps", "maxTxRateMbps"],
];
/** No administrative address. */
export const NO_MAC = "00:00:00:00:00:00";

/** Whether the PF names an address. Many name the VF's own choice too (igb_ndo_get_vf_config): it may be free all the same. */
export function isPinned(mac: string | undefined): mac is string {
  return mac !== undefined && mac !== NO_MAC;
}

/**
 * Lets the VF choose its address again: zero takes the PF's word back (igb_ndo_set_vf_mac, ixgbe_ndo_set_vf_mac, i40e_ndo_set_vf_mac,
 * ice_set_vf_mac, bnxt_set_vf_mac). On igb the VF hears nothing until it has chosen, so its link must get another address next.
 * False where the driver takes no zero. @throws {NetdevError} busy.
 */
export async function unpinMac(
  port: PfPort,
  vf: number,
  patience: Pick<Patience, "run"> | undefined,
): Promise<boolean> {
  try {
    const step = `clear the administrative address of VF ${vf}`;
    await waiting(patience, step, () => port.write(vf, { mac: NO_MAC }));
    return true;
  } catch (error) {
    if (error instanceof KernelError && error.code !== "ENODEV" && !isTransient(error)) return false;
    throw error;
  }
}

export interface ApplyOptions {
  readonly patience?: Pick<Patience, "run"> | undefined;
  /**
   * The address is written though the PF names it already: many PFs name what the VF has chosen, which is not theirs until it is
   * set (igb_ndo_get_vf_config), and take nothing of what they name (ice_set_vf_mac, "nothing left to do"): zero comes first.
   */
  readonly restatesMac?: boolean | undefined;
}

/**
 * Brings the settings of a VF to what is desired: reads, writes only what differs, and reads back. Each setting is on its
 * own: one that fails does not keep the others from being made. `before` holds what was set there of all that is requested.
 */
export async function applyVfSettings(
  port: PfPort,
  vf: number,
  desired: VfSettings,
  { patience, restatesMac }: ApplyOptions = {},
): Promise<{ readonly before: VfSettings; readonly faults: readonly SettingFault[] }> {
  const read = () => waiting(patience, `read the settings of VF ${vf}`, () => port.read(vf));
  const actual = await read();
  const before = pick(GROUPS.flat(), actual, desired);
  if (reportsNothing(actual)) return { before, faults: silentFaults(port, vf, desired) };
  const differing = differingSettings(actual, desired);
  const restates = restatesMac && isPinned(desired.mac) && !differing.includes("mac");
  if (restates) differing.unshift("mac");
  if (differing.length === 0) return { before, faults: [] };
  const faults: SettingFault[] = [];
  for (const group of GROUPS.filter((settings) => settings.some((setting) => differing.includes(setting)))) {
    try {
      if (restates && group.includes("mac")) await unpinMac(port, vf, patience);
      const step = `set ${group.join(", ")} of VF ${vf}`;
      await waiting(patience, step, () => port.write(vf, pick(group, desired, desired)));
    } catch (error) {
      const settings = group.filter((setting) => differing.includes(setting));
      faults.push(...settings.map((setting) => ({ setting, error: settingError(setting, vf, error) })));
    }
  }
  const after = await read();
  for (const setting of differingSettings(after, desired)) {
    if (faults.some((fault) => fault.setting === setting)) continue;
    const problem = `the PF took ${desired[setting]} and still says ${after[setting]}`;
    const fault = { kind: "vf-setting", setting, vf, problem, unsupported: false } as const;
    faults.push({ setting, error: new NetdevError(fault) });
  }
  return { before, faults };
}

function waiting<T>(patience: Pick<Patience, "run"> | undefined, step: string, act: () => Promise<T>): Promise<T> {
  return patience ? patience.run(step, act) : act();
}

/** The values of the requested settings. */
function pick(settings: readonly (keyof VfSettings)[], values: VfSettings, requested: VfSettings): VfSettings {
  return Object.fromEntries(settings.filter((key) => requested[key] !== undefined).map((key) => [key, values[key]]));
}

/** Which of the requested settings differ, in the order they are written. */
export function differingSettings(actual: VfSettings, desired: VfSettings): (keyof VfSettings)[] {
  if (reportsNothing(actual)) return requestedSettings(desired);
  return GROUPS.flat().filter((setting) => desired[setting] !== undefined && desired[setting] !== actual[setting]);
}

/**
 * Whether the PF reports nothing of its VFs: its driver has no `ndo_get_vf_config` (idpf, enetc, octeon_ep, ENA, virtio-net), or
 * it is the host's side of a card that manages its VFs itself (mlx5 on a DPU). Nothing that it takes could be read back.
 */
export function reportsNothing(actual: VfSettings): boolean {
  return Object.values(actual).every((value) => value === undefined);
}

/** What a VF has when nothing was requested. */
const NOTHING_REQUESTED: VfSettings = { mac: NO_MAC, vlan: 0, minTxRateMbps: 0, maxTxRateMbps: 0 };

function requestedSettings(desired: VfSettings): (keyof VfSettings)[] {
  return GROUPS.flat().filter((key) => desired[key] !== undefined && desired[key] !== NOTHING_REQUESTED[key]);
}

/** Why a PF that reports nothing cannot meet the request. Empty: nothing is requested. */
export function silentFaults(port: PfPort, vf: number, desired: VfSettings): readonly SettingFault[] {
  return requestedSettings(desired).map((setting) => {
    return { setting, error: new NetdevError({ kind: "vf-silent", setting, vf, pf: port.pf }) };
  });
}

/**
 * Restores what was set before. A driver that does not take "no address" gets the one the VF itself had: what matters is
 * that nothing of the last client stays.
 */
export async function restoreVfSettings(
  port: PfPort,
  vf: number,
  options: {
    readonly before: VfSettings;
    readonly ownMac: string | undefined;
  } & ApplyOptions,
): Promise<readonly SettingFault[]> {
  const { faults } = await applyVfSettings(port, vf, options.before, options);
  const macFault = faults.find((fault) => fault.setting === "mac");
  if (macFault?.error.fault.kind !== "vf-setting" || options.before.mac !== NO_MAC || !options.ownMac) return faults;
  const again = await applyVfSettings(port, vf, { mac: options.ownMac }, options);
  return again.faults.length > 0 ? faults : faults.filter((fault) => fault !== macFault);
}

/** May the VF be used although this setting was refused? Never when a client could then pass for another. */
export function isBearable(fault: SettingFault, desired: VfSettings): boolean {
  if (fault.setting === "mac" || fault.setting === "vlan") return false;
  if (fault.setting === "spoofCheck" && desired.spoofCheck) return false;
  return fault.error.fault.kind === "vf-setting" && fault.error.fault.unsupported;
}

function settingError(setting: keyof VfSettings, vf: number, error: unknown): NetdevError {
  const unsupported = error instanceof KernelError && ["EOPNOTSUPP", "ENOTSUP"].includes(error.code);
  // The driver has said nothing of the setting: it was busy until the time was up.
  if (error instanceof NetdevError && error.fault.kind === "busy") return error;
  const words = messageOf(error);
  const problem = unsupported ? "the driver of its PF cannot do that" : words;
  return new NetdevError({ kind: "vf-setting", setting, vf, problem, unsupported }, { cause: error });
}
