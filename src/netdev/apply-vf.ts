// What the PF and the link itself are told of a VF before it serves a client.
import type { Clock } from "../async/index.ts";
import { KernelError } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { setLinkMac } from "./link-mac.ts";
import type { Session } from "./read.ts";
import { isTransient, type Patience } from "./transient.ts";
import {
  type ApplyOptions,
  applyVfSettings,
  isBearable,
  isPinned,
  type PfPort,
  silentFaults,
  tellsNothing,
  unpinMac,
  type VfSettings,
} from "./vf-settings-through-pf.ts";

/** The VF beneath a link: its PF, its number there, and what the operator wants of every VF of that PF. */
export interface AttachedVf {
  readonly port: PfPort;
  readonly index: number;
  readonly settings: VfSettings;
}

export interface ApplyVfInput {
  /** Where the link is. */
  readonly session: Session;
  readonly ifindex: number;
  readonly mac: string | undefined;
  readonly vf: AttachedVf | undefined;
  /** Nothing of it was made for this client before. */
  readonly isFirst: boolean;
  /** Of the VF, the operator's included. */
  readonly wanted: VfSettings;
  /** Told what stands on the PF, and waited for, before it is changed. */
  readonly remember: (before: VfSettings) => Promise<void>;
  /** Told that this address, which the PF named, was the VF's own choice and none of the PF's. */
  readonly wasOwnChoice: (mac: string) => Promise<void>;
  /** Told of a setting that the driver can tell but not set. */
  readonly isUnsupported: (setting: keyof VfSettings) => void;
  readonly patience: Patience;
  readonly log: Log;
  readonly clock: Clock;
}

/** Brings VF and link to the settings that are wanted. @throws {NetdevError | KernelError} */
export async function applyVf(input: ApplyVfInput): Promise<void> {
  const { session, ifindex, mac, vf, patience, clock } = input;
  if (vf) await applyOnPf(input, vf);
  if (mac !== undefined) await setLinkMac({ session, ifindex, mac, patience, clock });
}

async function applyOnPf(input: ApplyVfInput, { port, index }: AttachedVf): Promise<void> {
  const { mac, wanted, patience } = input;
  const standing = await patience.run(`read the settings of VF ${index}`, () => port.read(index));
  const [refused] = tellsNothing(standing) ? silentFaults(port, index, wanted) : [];
  if (refused) throw refused.error;
  await input.remember(pick(standing, Object.keys(wanted)));
  if (mac !== undefined && standing.mac !== mac) await chooseMac(input, { vf: { port, index }, standing, mac });
  const restatesMac = input.isFirst || standing.mac !== mac;
  await applyBearable({ port, index }, wanted, { ...input, restatesMac });
}

interface BearableOptions extends ApplyOptions, Pick<ApplyVfInput, "isUnsupported" | "log"> {}

/** Settings of the VF on its PF. @throws {NetdevError} where the client could pass for another without one that is refused. */
export async function applyBearable(
  { port, index }: Omit<AttachedVf, "settings">,
  wanted: VfSettings,
  { isUnsupported, log, ...options }: BearableOptions,
): Promise<void> {
  const { faults } = await applyVfSettings(port, index, wanted, options);
  for (const fault of faults) {
    if (!isBearable(fault, wanted)) throw fault.error;
    isUnsupported(fault.setting);
    log.warn("vf-setting-unsupported", { vf: index, setting: fault.setting, error: fault.error });
  }
}

interface MacChoice {
  readonly vf: Omit<AttachedVf, "settings">;
  readonly standing: VfSettings;
  readonly mac: string;
}

/**
 * The VF's own word comes before the PF's: igbvf takes an address of the PF only when it is bound, and with one that stands there the
 * PF lets it choose no other (docs/decisions/034). What the VF does not take decides nothing yet: the PF is asked next.
 */
async function chooseMac(input: ApplyVfInput, { vf, standing, mac }: MacChoice): Promise<void> {
  const outcome = await tryMac(input, mac);
  const before = standing.mac;
  if (!isPinned(before)) return;
  if (outcome === "refused") {
    if (await unpinMac(vf.port, vf.index, input.patience)) await tryMac(input, mac);
  } else if (outcome === "taken" && standing.trust !== true) {
    // A PF that now names what nobody has told it names what its VF chooses (igb, ixgbe, i40e, ice).
    const { mac: named } = await input.patience.run(`read the settings of VF ${vf.index}`, () =>
      vf.port.read(vf.index),
    );
    if (named === mac) await input.wasOwnChoice(before);
  }
}

async function tryMac({ session, ifindex, log }: ApplyVfInput, mac: string): Promise<"taken" | "refused" | "busy"> {
  try {
    await session.rtnl.setLink(ifindex, { address: mac });
    return "taken";
  } catch (error) {
    log.debug("link-refuses-mac", { ifindex, mac, error });
    return error instanceof KernelError && !isTransient(error) ? "refused" : "busy";
  }
}

function pick(settings: VfSettings, keys: readonly string[]): VfSettings {
  return Object.fromEntries(keys.map((key) => [key, settings[key as keyof VfSettings]]));
}
