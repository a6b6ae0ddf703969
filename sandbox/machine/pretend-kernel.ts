// Links, namespaces and locks of a pretend machine: this kernel's, or what stands in its place.
import { Netns, Rtnl } from "../../src/kernel/index.ts";
import { Wire } from "../network/wire.ts";
import { NamedNetdevs } from "../nic/netdev-names.ts";
import type { NetdevMaker } from "../nic/nic.ts";
import { PfLockFolders, type PfLocks } from "../nic/pf-locks.ts";
import type { LinkMaker, LinksParts, NetdevView } from "../nic/sysfs.ts";
import { createOwnNetns, requireOwnNetns } from "../own-netns.ts";

/** Links, namespaces and locks that are none of this kernel's. */
export interface PretendKernel {
  readonly netdevs: NetdevMaker & NetdevView & LinkMaker;
  readonly netns: Netns;
  readonly locks: PfLocks;
  openRtnl(netns: Netns): Rtnl;
  close(): Promise<void>;
}

/** Which of them. */
export interface KernelOptions {
  /** Real network devices, which need CAP_NET_ADMIN and CAP_SYS_ADMIN; names only by default. */
  readonly realLinks?: boolean;
  /** In place of this kernel. */
  readonly kernel?: (parts: LinksParts) => PretendKernel;
  /**
   * The host's network namespace; stays the caller's. Otherwise the machine makes one for real links, and without them
   * names the process's own: a forwarder starts there only where the sandbox made that too.
   */
  readonly netns?: Netns;
}

/** The kernel that the options name; else this machine's, with its links or with pretend ones. */
export async function openKernel(options: KernelOptions, parts: LinksParts): Promise<PretendKernel> {
  if (options.kernel) return options.kernel(parts);
  const ours = { openRtnl: (netns: Netns) => Rtnl.open({ netns }), locks: new PfLockFolders() };
  if (!options.realLinks) {
    const netns = options.netns?.dup() ?? Netns.current();
    return { ...ours, netdevs: new NamedNetdevs(), netns, close: async () => netns.close() };
  }
  const host = options.netns ?? (await createOwnNetns());
  await requireOwnNetns(host);
  const wire = Netns.create();
  const netdevs = new Wire({ host, wire, ...parts });
  return {
    ...ours,
    netdevs,
    netns: host,
    async close() {
      await netdevs.close({ hostLivesOn: options.netns !== undefined });
      wire.close();
      if (!options.netns) host.close();
    },
  };
}
