// What the PF and the link itself are told of a VF before it serves a client.
import type { Clock } from "../async/index.ts";
import type { Log } from "../telemetry/index.ts";
import { setLinkMac } from "./mac.ts";
import type { Session } from "./read.ts";
import type { Patience } from "./transient.ts";
import {
  applyVfSettings,
  isBearable,
  type PfPort,
  silentFaults,
  tellsNothing,
  type VfSettings,
} from "./vf-settings.ts";

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
  /** Of the VF, the operator's included. */
  readonly wanted: VfSettings;
  /** Told what stands on the PF, and waited for, before it is changed. */
  readonly remember: (before: VfSettings) => Promise<void>;
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
  const { mac, wanted, patience, log } = input;
  const standing = await patience.run(`read the settings of VF ${index}`, () => port.read(index));
  const [refused] = tellsNothing(standing) ? silentFaults(port, index, wanted) : [];
  if (refused) throw refused.error;
  await input.remember(pick(standing, Object.keys(wanted)));
  // Before the PF has a word on it: a VF with an administrative address may not choose its own any more.
  if (mac !== undefined && standing.mac !== mac) await tryMac(input, mac);
  const { faults } = await applyVfSettings(port, index, wanted, patience);
  for (const fault of faults) {
    if (!isBearable(fault, wanted)) throw fault.error;
    input.isUnsupported(fault.setting);
    log.warn("vf-setting-unsupported", { vf: index, setting: fault.setting, error: fault.error });
  }
}

/** A refusal decides nothing, nor does a driver that is busy: the PF is asked next. */
async function tryMac({ session, ifindex, log }: ApplyVfInput, mac: string): Promise<void> {
  await session.rtnl.setLink(ifindex, { address: mac }).catch((error: unknown) => {
    log.debug("link-refuses-mac", { ifindex, mac, error });
  });
}

function pick(settings: VfSettings, keys: readonly string[]): VfSettings {
  return Object.fromEntries(keys.map((key) => [key, settings[key as keyof VfSettings]]));
}
