// What is set on the PF and on the link itself for a VF before it serves a client.
import type { Clock } from "../async/index.ts";
import type { LinkPlace } from "../kernel/index.ts";
import { KernelError } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { DesiredNetdev } from "./desired.ts";
import { setLinkMac } from "./link-mac.ts";
import { isTransient, type Patience } from "./transient.ts";
import {
  type ApplyOptions,
  applyVfSettings,
  differingSettings,
  isBearable,
  isPinned,
  NO_MAC,
  type PfPort,
  reportsNothing,
  silentFaults,
  unpinMac,
  type VfSettings,
} from "./vf-settings-through-pf.ts";

/** The VF beneath a link: its PF, its number there, and what the operator wants of every VF of that PF. */
export interface AttachedVf {
  readonly port: PfPort;
  readonly index: number;
  readonly settings: VfSettings;
}

interface VfBeneathParts {
  readonly vf: AttachedVf;
  /** What the PF held before we changed it, as far as it is remembered. */
  readonly before: () => VfSettings;
  /** Called with more of that, and waited for, before it is changed. */
  readonly remember: (before: VfSettings) => Promise<void>;
  readonly log: Log;
  readonly clock: Clock;
}

/** Where the VF's link is. */
interface Place {
  readonly session: LinkPlace;
  readonly ifindex: number;
  /** Nothing of it was made for this client before. */
  readonly isFirst: boolean;
  readonly patience: Patience;
}

/** The VF beneath one link, on its PF. */
export class VfBeneath {
  readonly #parts: VfBeneathParts;
  /** Settings that the driver can report but not set: requested once per process, no difference afterwards. */
  readonly #unsupported = new Set<keyof VfSettings>();

  constructor(parts: VfBeneathParts) {
    this.#parts = parts;
  }

  /** What is not as desired, by reading only. */
  async differing(desired: DesiredNetdev, patience: Patience): Promise<readonly (keyof VfSettings)[]> {
    const differing = differingSettings(await this.#read(patience), this.#desiredOf(desired));
    return differing.filter((setting) => !this.#unsupported.has(setting));
  }

  /** Brings VF and link to the settings that are desired. @throws {NetdevError | KernelError} */
  async apply(desired: DesiredNetdev, place: Place): Promise<void> {
    const { vf, before, remember, log, clock } = this.#parts;
    const { patience, isFirst } = place;
    const { mac } = desired;
    const settings = this.#desiredOf(desired);
    const actual = await this.#read(patience);
    const [refused] = reportsNothing(actual) ? silentFaults(vf.port, vf.index, settings) : [];
    if (refused) throw refused.error;
    await remember({ ...pick(actual, Object.keys(settings)), ...before() });
    const changesMac = mac !== undefined && actual.mac !== mac;
    if (changesMac) await this.#chooseMac(mac, actual, place);
    const isUnsupported = (setting: keyof VfSettings) => void this.#unsupported.add(setting);
    const restatesMac = isFirst || actual.mac !== mac;
    await applyBearable(vf, settings, { patience, restatesMac, isUnsupported, log });
    if (mac !== undefined) await setLinkMac({ ...place, mac, clock });
  }

  #read(patience: Patience): Promise<VfSettings> {
    const { port, index } = this.#parts.vf;
    return patience.run(`read the settings of VF ${index}`, () => port.read(index));
  }

  #desiredOf({ mac, vlan }: DesiredNetdev): VfSettings {
    return { ...this.#parts.vf.settings, mac, vlan };
  }

  /**
   * The VF's own word comes before the PF's: igbvf takes an address of the PF only when it is bound, and with one that is set there the
   * PF lets it choose no other (docs/decisions/034). What the VF does not take decides nothing yet: the PF gets the request next.
   */
  async #chooseMac(mac: string, actual: VfSettings, place: Place): Promise<void> {
    const { vf, before, remember } = this.#parts;
    const { patience } = place;
    const outcome = await this.#tryMac(mac, place);
    if (!isPinned(actual.mac)) return;
    if (outcome === "refused") {
      if (await unpinMac(vf.port, vf.index, patience)) await this.#tryMac(mac, place);
    } else if (outcome === "taken" && actual.trust !== true) {
      // A PF that now names what was never set names what its VF chooses (igb, ixgbe, i40e, ice).
      const { mac: named } = await this.#read(patience);
      if (named === mac && before().mac === actual.mac) await remember({ ...before(), mac: NO_MAC });
    }
  }

  async #tryMac(mac: string, { session, ifindex }: Place): Promise<"taken" | "refused" | "busy"> {
    try {
      await session.rtnl.setLink(ifindex, { address: mac });
      return "taken";
    } catch (error) {
      this.#parts.log.debug("link-refuses-mac", { ifindex, mac, error });
      return error instanceof KernelError && !isTransient(error) ? "refused" : "busy";
    }
  }
}

interface BearableOptions extends ApplyOptions {
  /** Called with a setting that the driver can report but not set. */
  readonly isUnsupported: (setting: keyof VfSettings) => void;
  readonly log: Log;
}

/** Settings of the VF on its PF. @throws {NetdevError} where the client could pass for another without one that is refused. */
export async function applyBearable(
  { port, index }: Omit<AttachedVf, "settings">,
  desired: VfSettings,
  { isUnsupported, log, ...options }: BearableOptions,
): Promise<void> {
  const { faults } = await applyVfSettings(port, index, desired, options);
  for (const fault of faults) {
    if (!isBearable(fault, desired)) throw fault.error;
    isUnsupported(fault.setting);
    log.warn("vf-setting-unsupported", { vf: index, setting: fault.setting, error: fault.error });
  }
}

function pick(settings: VfSettings, keys: readonly string[]): VfSettings {
  return Object.fromEntries(keys.map((key) => [key, settings[key as keyof VfSettings]]));
}
