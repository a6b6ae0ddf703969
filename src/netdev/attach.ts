import type { Clock, Random } from "../async/index.ts";
import type { Netns, OpenRtnl } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { AttachedVf } from "./apply-vf.ts";
import { type AttachmentState, NetdevAttachment } from "./attachment.ts";
import type { WantedNetdev } from "./desired.ts";
import { NetdevError } from "./error.ts";
import { newTemporaryName, originalOf } from "./move.ts";
import { NOTHING_OWNED } from "./owned.ts";
import { inSession } from "./read.ts";
import { type VfIdentity, verifiedLink } from "./verify-link.ts";
import type { VfLink } from "./vf-link.ts";
import { NO_MAC } from "./vf-settings-through-pf.ts";

export interface AttachOptions {
  /** Where the link is now; stays the caller's. */
  readonly host: Netns;
  /** Where it shall be; stays the caller's, open as long as the attachment is used. */
  readonly client: Netns;
  /** Where sysfs has the VF's link, in the host: what it says is verified. */
  readonly ifindex: number;
  readonly of: VfIdentity;
  readonly wanted: WantedNetdev;
  readonly vf?: AttachedVf | undefined;
  /** How the link is found again where its driver makes another one. */
  readonly vfLink?: VfLink | undefined;
  readonly openRtnl: OpenRtnl;
  readonly log: Log;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal?: AbortSignal | undefined;
  /** Keeps the state before each step that it does not yet tell of. */
  readonly record?: ((state: AttachmentState) => Promise<void>) | undefined;
  /**
   * Gets what an attach that failed could not take back, before the error "left-behind" is thrown: another `detach` goes on
   * with it.
   */
  readonly keepLeft?: ((attachment: NetdevAttachment) => void) | undefined;
}

/**
 * The original's inject, connectioncontextkernel and ethernetcontext. Gives a link of the host to a client: its own
 * address and the settings on the PF (decision 034), move, name, addresses, routes, rules, neighbours, up. When a step fails all is undone.
 * @throws {NetdevError | KernelError} the first failure; of kind "left-behind" when the link is not what it was before.
 */
export async function attachNetdev(options: AttachOptions): Promise<NetdevAttachment> {
  const attachment = await openAttachment(options);
  try {
    await attachment.enter(options.wanted, options.signal);
    return attachment;
  } catch (error) {
    const left = await attachment.detach();
    if (left.length === 0) throw error;
    options.keepLeft?.(attachment);
    const reason = error instanceof Error ? error.message : String(error);
    const { name } = attachment.state.original;
    const what = left.map((failure) => failure.what);
    throw new NetdevError({ kind: "left-behind", link: name, reason, left: what }, { cause: error });
  }
}

async function openAttachment(options: AttachOptions): Promise<NetdevAttachment> {
  const { host, client, ifindex, of, wanted, vf, vfLink, openRtnl, log, clock, random, record } = options;
  if (client.isSame(host)) throw new NetdevError({ kind: "host-namespace" });
  const link = await inSession(host, (session) => verifiedLink(session, ifindex, of), openRtnl);
  const state: AttachmentState = {
    original: originalOf(link),
    temporaryName: newTemporaryName(random),
    name: wanted.name,
    clientIndex: undefined,
    owned: NOTHING_OWNED,
    vfBefore: {},
  };
  return new NetdevAttachment({ host, client, state, of, vf, vfLink, openRtnl, log, clock, random, record });
}

/** The Ethernet default; what a link had before a client that nobody knew is not known either. */
const DEFAULT_MTU = 1500;

/**
 * The state of a link whose own state nobody kept, in the host: `detach` of what is adopted with it makes it a link that is
 * down, has that name and the default MTU, and for which its PF sets no address and no VLAN.
 * @throws {NetdevError} of kind "gone" or "not-its-link".
 */
export async function strangerState(
  { host, openRtnl, random }: Pick<AttachOptions, "host" | "openRtnl" | "random">,
  { ifindex, name, of }: { readonly ifindex: number; readonly name: string; readonly of: VfIdentity },
): Promise<AttachmentState> {
  const link = await inSession(host, (session) => verifiedLink(session, ifindex, of), openRtnl);
  return {
    original: { ...originalOf(link), name, mtu: DEFAULT_MTU, up: false },
    temporaryName: newTemporaryName(random),
    name: link.name,
    clientIndex: undefined,
    owned: NOTHING_OWNED,
    vfBefore: { mac: NO_MAC, vlan: 0 },
  };
}
