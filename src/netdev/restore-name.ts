// The names of a link that is restored: its own, which other links may have by now.
import type { Clock } from "../async/index.ts";
import { KernelError, type Link, type LinkPlace } from "../kernel/index.ts";
import type { LinkIdentity } from "./attachment-state.ts";
import type { Patience } from "./transient.ts";
import type { VfIdentity } from "./verify-link.ts";

/** Names of the host that are other VFs'. */
export interface OthersNames {
  /** Whether another VF that is out is to have the name again. */
  isPromised(name: string): boolean;
  /** Whether what is on that PCI function keeps its name: it is no VF that comes from a client or goes to one. */
  isKeptBy(pciFunction: string): boolean;
}

/** Where nothing is known of other VFs. */
export const NOTHING_KNOWN: OthersNames = { isPromised: () => false, isKeptBy: () => false };

interface NamedLink {
  readonly host: LinkPlace;
  readonly identity: LinkIdentity;
  readonly of: VfIdentity;
  readonly patience: Patience;
  readonly clock: Clock;
  readonly othersNames: OthersNames;
}

/** A kernel's limit: IFNAMSIZ (16, include/uapi/linux/if.h) counts the final NUL. */
const LONGEST_NAME = 15;

/**
 * What a VF is called that cannot have its own name. Only it is called so, and always: one of the kernel's (eth%d) may be that of a VF
 * which is with a client, and would be taken when that comes back.
 */
function standInOf({ address }: VfIdentity): string {
  return `vf${address.replaceAll(/[:.]/g, "-")}`.slice(-LONGEST_NAME);
}

/** So long a link waits for its name where another VF has it that may give it up, as one does that comes back together with it. */
const NAME_WAIT_MS = 5_000;

/** Whether the link is not to be called what it is. What never left keeps its name, though another VF is to have that. */
export function isMisnamed(
  { identity, of, othersNames }: Pick<NamedLink, "identity" | "of" | "othersNames">,
  { index, name }: Pick<Link, "index" | "name">,
): boolean {
  const { original } = identity;
  if (index === original.index && name === original.name) return false;
  return name !== (othersNames.isPromised(original.name) ? standInOf(of) : original.name);
}

/**
 * Its own name. The kernel calls each new device by the first name that is free, so of several VFs whose drivers make them again each may
 * have the name of another: who cannot have its own gives up what it has, and waits. Where another link keeps the name, or another VF has it
 * as soon as its client leaves, it gets its stand-in; a process that waits for a name that comes and goes with other VFs might
 * wait for ever. Where the link itself has it as an alternative name, as udev may have given it, the kernel refuses it as well.
 */
export async function giveName(
  { host, identity, of, patience, clock, othersNames }: NamedLink,
  link: Pick<Link, "index" | "name">,
): Promise<void> {
  const { name } = identity.original;
  const untilMs = clock.monotonicMs() + NAME_WAIT_MS;
  const rename = (to: string) => host.rtnl.setLink(link.index, { name: to });
  const standIn = standInOf(of);
  const giveUp = async () => link.name === standIn || (await rename(standIn));
  await patience.until(`give the link the name ${name}`, async () => {
    if (othersNames.isPromised(name)) return { done: await giveUp() };
    try {
      return { done: await rename(name) };
    } catch (error) {
      if (!isTaken(error)) throw error;
    }
    if (link.name !== standIn) await rename(identity.temporaryName);
    const holder = await host.rtnl.linkByName(name);
    if (!holder) return "another link had it just now";
    if (holder.index === link.index) {
      await host.rtnl.setLink(link.index, { removeAltNames: [name] });
      return { done: await rename(name) };
    }
    const { pciFunction } = await of.linkOwnerOf(host, holder);
    const isKept = pciFunction === undefined || othersNames.isKeptBy(pciFunction);
    const mayGiveUp = !isKept && clock.monotonicMs() < untilMs;
    return mayGiveUp ? `link ${holder.index} has it` : { done: await giveUp() };
  });
}

/** udev gives its names to each new device, perhaps at this moment: then the link has it already. */
export async function giveAltName({ rtnl }: LinkPlace, ifindex: number, name: string): Promise<void> {
  try {
    await rtnl.setLink(ifindex, { addAltNames: [name] });
  } catch (error) {
    if (!isTaken(error) || !(await rtnl.linkByIndex(ifindex))?.altNames.includes(name)) throw error;
  }
}

function isTaken(error: unknown): boolean {
  return error instanceof KernelError && error.code === "EEXIST";
}
