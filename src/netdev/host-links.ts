import { type Clock, KeyedQueue, type Random } from "../async/index.ts";
import type { BorrowedFd, Link, LinkOwnerOf, Netns, OpenRtnl, Rtnl } from "../kernel/index.ts";
import { inSession } from "./read.ts";
import { verifiedLink } from "./verify-link.ts";

/** The links of the host, for all attachments of a process. Opened once, when it starts, and handed down. */
export class HostLinks {
  /** The host's namespace. */
  readonly netns: Netns;
  readonly openRtnl: OpenRtnl;
  readonly linkOwnerOf: LinkOwnerOf;
  /** The namespace that a client has passed; the descriptor stays the caller's. @throws {NotANetnsError} */
  readonly netnsOf: (fd: BorrowedFd) => Netns;
  readonly random: Random;
  readonly clock: Clock;
  /**
   * By the client's namespace, which is one thing for the whole process, whichever holds a handle of it: two links that enter it at
   * once would pick the same free routing table.
   */
  readonly turns = new KeyedQueue<string>();

  constructor(
    host: Pick<HostLinks, "netns" | "linkOwnerOf" | "netnsOf" | "random"> & { openRtnl(netns: Netns): Rtnl },
    clock: Clock,
  ) {
    this.netns = host.netns;
    this.openRtnl = (netns) => host.openRtnl(netns);
    this.linkOwnerOf = host.linkOwnerOf;
    this.netnsOf = host.netnsOf;
    this.random = host.random;
    this.clock = clock;
  }

  /**
   * The link of the host that has that index.
   * @throws {NetdevError} of kind "gone", or "not-its-link" when it is not the VF's.
   */
  verified(address: string, ifindex: number): Promise<Link> {
    const { netns, openRtnl, linkOwnerOf } = this;
    return inSession(netns, (session) => verifiedLink(session, ifindex, { address, linkOwnerOf }), openRtnl);
  }
}
