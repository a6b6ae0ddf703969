import { KernelError, type Rtnl, type VfChange, type VfLinkState } from "../kernel/index.ts";
import { NetdevError } from "./error.ts";

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
  read(vfIndex: number): Promise<VfSettings>;
  /** @throws {KernelError} of the first setting that the driver does not take. */
  write(vfIndex: number, change: VfSettings): Promise<void>;
}

/** A setting that could not be made as wanted. */
export interface SettingFault {
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

/** The port of a PF in the namespace of the socket. The PF is looked up at each use: udev may rename it. */
export function rtnlPfPort(rtnl: Rtnl, pf: { readonly ifname: string } | { readonly ifindex: number }): PfPort {
  const pfIndex = async () => {
    if ("ifindex" in pf) return pf.ifindex;
    const link = await rtnl.linkByName(pf.ifname);
    if (!link) throw new NetdevError({ kind: "gone", link: pf.ifname, where: "the host's namespace" });
    return link.index;
  };
  return {
    async read(vf) {
      const index = await pfIndex();
      const [info] = await rtnl.vfInfos(index, vf);
      if (!info) throw new NetdevError({ kind: "gone", link: `VF ${vf}`, where: `the list of PF link ${index}` });
      const { mac, vlan, spoofCheck, trust, linkState, minTxRateMbps, maxTxRateMbps } = info;
      return { mac, vlan, spoofCheck, trust, linkState, minTxRateMbps, maxTxRateMbps };
    },
    async write(vf, change) {
      const index = await pfIndex();
      await rtnl.setVf(index, vf, await vfChange(rtnl, { index, vf, change }));
    },
  };
}

async function vfChange(rtnl: Rtnl, input: { index: number; vf: number; change: VfSettings }): Promise<VfChange> {
  const { mac, vlan, minTxRateMbps, maxTxRateMbps, spoofCheck, trust, linkState } = input.change;
  const change: VfChange = {
    ...(mac !== undefined && { mac }),
    ...(vlan !== undefined && { vlan: { id: vlan } }),
    ...(spoofCheck !== undefined && { spoofCheck }),
    ...(trust !== undefined && { trust }),
    ...(linkState !== undefined && { linkState }),
  };
  if (minTxRateMbps === undefined && maxTxRateMbps === undefined) return change;
  // Both limits travel in one attribute: the one that is not asked for stays.
  const [info] = await rtnl.vfInfos(input.index, input.vf);
  const minMbps = minTxRateMbps ?? info?.minTxRateMbps ?? 0;
  return { ...change, rate: { minMbps, maxMbps: maxTxRateMbps ?? info?.maxTxRateMbps ?? 0 } };
}

/**
 * Brings the settings of a VF to what is wanted: reads, writes only what differs, and reads back. Each setting is on its
 * own: one that fails does not keep the others from being made. `before` holds what stood there of all that is wanted.
 */
export async function applyVfSettings(
  port: PfPort,
  vf: number,
  wanted: VfSettings,
): Promise<{ readonly before: VfSettings; readonly faults: readonly SettingFault[] }> {
  const standing = await port.read(vf);
  const before = pick(GROUPS.flat(), standing, wanted);
  const differing = differingSettings(standing, wanted);
  if (differing.length === 0) return { before, faults: [] };
  const faults: SettingFault[] = [];
  for (const group of GROUPS.filter((settings) => settings.some((setting) => differing.includes(setting)))) {
    try {
      await port.write(vf, pick(group, wanted, wanted));
    } catch (error) {
      const settings = group.filter((setting) => differing.includes(setting));
      faults.push(...settings.map((setting) => ({ setting, error: settingError(setting, vf, error) })));
    }
  }
  const after = await port.read(vf);
  for (const setting of differingSettings(after, wanted)) {
    if (faults.some((fault) => fault.setting === setting)) continue;
    const problem = `the PF took ${wanted[setting]} and still says ${after[setting]}`;
    const fault = { kind: "vf-setting", setting, vf, problem, unsupported: false } as const;
    faults.push({ setting, error: new NetdevError(fault) });
  }
  return { before, faults };
}

/** The values of those settings that are asked for. */
function pick(settings: readonly (keyof VfSettings)[], values: VfSettings, asked: VfSettings): VfSettings {
  return Object.fromEntries(settings.filter((key) => asked[key] !== undefined).map((key) => [key, values[key]]));
}

/** Which of the wanted settings stand otherwise, in the order they are written. */
export function differingSettings(standing: VfSettings, wanted: VfSettings): (keyof VfSettings)[] {
  return GROUPS.flat().filter((setting) => wanted[setting] !== undefined && wanted[setting] !== standing[setting]);
}

/**
 * Puts back what stood before. A driver that does not take "no address" gets the one the VF itself had: what matters is
 * that nothing of the last client stays.
 */
export async function restoreVfSettings(
  port: PfPort,
  vf: number,
  options: { readonly before: VfSettings; readonly ownMac: string | undefined },
): Promise<readonly SettingFault[]> {
  const { faults } = await applyVfSettings(port, vf, options.before);
  const macFault = faults.find((fault) => fault.setting === "mac");
  if (!macFault || options.before.mac !== NO_MAC || options.ownMac === undefined) return faults;
  const again = await applyVfSettings(port, vf, { mac: options.ownMac });
  return again.faults.length > 0 ? faults : faults.filter((fault) => fault !== macFault);
}

/** May the VF be used although this setting was refused? Never when a client could then pass for another. */
export function isBearable(fault: SettingFault, wanted: VfSettings): boolean {
  if (fault.setting === "mac" || fault.setting === "vlan") return false;
  if (fault.setting === "spoofCheck" && wanted.spoofCheck) return false;
  return fault.error.fault.kind === "vf-setting" && fault.error.fault.unsupported;
}

function settingError(setting: keyof VfSettings, vf: number, error: unknown): NetdevError {
  const unsupported = error instanceof KernelError && ["EOPNOTSUPP", "ENOTSUP"].includes(error.code);
  const words = error instanceof Error ? error.message : String(error);
  const problem = unsupported ? "the driver of its PF cannot do that" : words;
  return new NetdevError({ kind: "vf-setting", setting, vf, problem, unsupported }, { cause: error });
}
