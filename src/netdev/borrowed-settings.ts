import type { Clock, Random } from "../async/index.ts";
import type { Log } from "../telemetry/index.ts";
import { type AttachedVf, applyBearable } from "./apply-vf.ts";
import { signsOfTime } from "./link-signs.ts";
import { parseMac, parseVlan } from "./parse.ts";
import { Patience } from "./transient.ts";
import { isOtherDevice, type VfLink } from "./vf-link.ts";
import { differingSettings, isPinned, NO_MAC, restoreVfSettings, type VfSettings } from "./vf-settings-through-pf.ts";

/** What an endpoint requests for a VF that has no network device of ours. Empty and 0 are the same as none. */
export interface RequestedSettings {
  readonly mac?: string | undefined;
  readonly vlan?: number | undefined;
}

/** What the settings are of, and how they are kept. */
interface BorrowedSettingsParts {
  readonly vf: AttachedVf;
  /** What the PF held before a previous instance changed it. */
  readonly before: VfSettings;
  /** Tells the VF from the next one that has its address. Where it is left out, `before` is of the VF that is there. */
  readonly vfLink?: Pick<VfLink, "device">;
  /** The VF that `before` is of, as `vfLink` says. */
  readonly device?: string | undefined;
  /** An address that is not the PF's word, though the PF names it: the VF had chosen it when it was a network device. */
  readonly chosenMac?: string | undefined;
  /** Called, and waited for, before anything is changed that `before` does not have yet. */
  readonly record: (before: VfSettings, device: string | undefined) => Promise<void>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** As long as a Request or a Close waits for a PF whose driver is busy; both may be tried again. */
const BUSY_LIMIT_MS = 10_000;

/** The original's ethernetcontext for VFIO: the settings of a VF on its PF while a client drives the VF itself. */
export class BorrowedSettings {
  readonly #parts: BorrowedSettingsParts;
  #before: VfSettings;
  #device: string | undefined;
  /** Settings that the driver can report but not set. */
  readonly #unsupported = new Set<keyof VfSettings>();

  constructor(parts: BorrowedSettingsParts) {
    this.#parts = parts;
    this.#before = parts.before;
    this.#device = parts.device;
  }

  /**
   * Brings the PF to what is desired; writes only what differs.
   * @throws {NetdevError} invalid, or vf-setting when the client could pass for another without it.
   */
  async apply(requested: RequestedSettings, signal?: AbortSignal): Promise<void> {
    const { vf, record, chosenMac, log } = this.#parts;
    const desired = this.#desired(requested);
    await this.#forgetOfOther();
    const patience = this.#patience(signal);
    const named = await patience.run(`read the settings of VF ${vf.index}`, () => vf.port.read(vf.index));
    // Set by the PF it would pin the VF: its next client could choose no address where the first one could.
    const actual = named.mac !== undefined && named.mac === chosenMac ? { ...named, mac: NO_MAC } : named;
    const fresh = Object.keys(desired).filter((key) => !(key in this.#before)) as (keyof VfSettings)[];
    if (fresh.length > 0) {
      this.#before = { ...this.#before, ...Object.fromEntries(fresh.map((key) => [key, actual[key]])) };
      await record(this.#before, this.#device);
    }
    const isUnsupported = (setting: keyof VfSettings) => void this.#unsupported.add(setting);
    await applyBearable(vf, desired, { patience, restatesMac: fresh.length > 0, isUnsupported, log });
  }

  /** Whether `apply` would change nothing. Reads only. */
  async isInForce(requested: RequestedSettings): Promise<boolean> {
    const { port, index } = this.#parts.vf;
    const differing = differingSettings(await port.read(index), this.#desired(requested));
    return differing.every((setting) => this.#unsupported.has(setting));
  }

  /**
   * Makes the PF what it was before. Can be called again for what failed. Another VF in this one's place stays as it is.
   * @throws {NetdevError} the first setting that is not as it was.
   */
  async restore(): Promise<void> {
    const { vf, chosenMac, random } = this.#parts;
    const { port, index } = vf;
    await this.#forgetOfOther();
    if (Object.keys(this.#before).length === 0) return;
    // A driver that does not take "no address" gets the VF's own, or one that is not in use: nothing of the last client may stay.
    const ownMac = isPinned(chosenMac) ? chosenMac : newMac(random);
    const [fault] = await restoreVfSettings(port, index, { before: this.#before, ownMac, patience: this.#patience() });
    if (fault) throw fault.error;
    this.#before = {};
  }

  /** The PF forgets what it had set of a VF that is destroyed, and what is set of the next one is the host's. */
  async #forgetOfOther(): Promise<void> {
    const { vfLink } = this.#parts;
    if (!vfLink || !(await isOtherDevice(vfLink, { device: this.#device }))) return;
    this.#device = await vfLink.device();
    this.#before = {};
  }

  #patience(signal?: AbortSignal): Patience {
    const { vf, clock, log } = this.#parts;
    const link = `VF ${vf.index} of PF ${vf.port.pf}`;
    return new Patience({ link, clock, log, limitMs: BUSY_LIMIT_MS, signal, nextSign: signsOfTime(clock) });
  }

  #desired({ mac, vlan }: RequestedSettings): VfSettings {
    const { settings } = this.#parts.vf;
    return { ...settings, ...(mac && { mac: parseMac("MAC address", mac) }), vlan: parseVlan(vlan ?? 0) };
  }
}

/** Random, locally administered, of one station: IEEE 802, bits 0 and 1 of the first byte. */
function newMac(random: Random): string {
  const bytes = random.bytes(6);
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return bytes.toString("hex").replace(/..(?=.)/g, "$&:");
}
