import { type Clock, KeyedQueue, type Random } from "../async/index.ts";
import {
  type BorrowedFd,
  fileKey,
  type Link,
  type LinkOwnerOf,
  type LinkPlace,
  type Netns,
  type OpenRtnl,
  type Rtnl,
} from "../kernel/index.ts";
import { linkSigns } from "./link-signs.ts";
import type { SettingsDoor } from "./settings-door.ts";
import { Patience, type PatienceOptions } from "./transient.ts";
import { verifiedLink } from "./verify-link.ts";

/** Which link is waited for, and how long. */
interface Waiting extends Pick<PatienceOptions, "log" | "limitMs" | "signal"> {
  readonly link: Pick<Link, "name" | "parentDevice">;
}

/** The links of the host, for all attachments of a process. Opened once, when it starts, and handed down. */
export class HostLinks {
  /** The host's namespace. */
  readonly netns: Netns;
  readonly openRtnl: OpenRtnl;
  readonly linkOwnerOf: LinkOwnerOf;
  /** The namespace that a client has passed; the descriptor stays the caller's. @throws {NotANetnsError} */
  readonly netnsOf: (fd: BorrowedFd) => Netns;
  readonly random: Random;
  /** Undefined where the links are not this kernel's. */
  readonly settings: SettingsDoor | undefined;
  readonly clock: Clock;
  /**
   * By the client's namespace, which is one thing for the whole process, whichever holds a handle of it: two links that enter it at
   * once would pick the same free routing table.
   */
  readonly #turns = new KeyedQueue<string>();

  constructor(
    host: Pick<HostLinks, "netns" | "linkOwnerOf" | "netnsOf" | "random"> & {
      openRtnl(netns: Netns): Rtnl;
      readonly linkSettings?: SettingsDoor | undefined;
    },
    clock: Clock,
  ) {
    this.netns = host.netns;
    this.openRtnl = (netns) => host.openRtnl(netns);
    this.linkOwnerOf = host.linkOwnerOf;
    this.netnsOf = host.netnsOf;
    this.random = host.random;
    this.settings = host.linkSettings;
    this.clock = clock;
  }

  /**
   * The link of the host that has that index.
   * @throws {NetdevError} of kind "gone", or "not-its-link" when it is not the VF's.
   */
  verified(address: string, ifindex: number): Promise<Link> {
    const { linkOwnerOf } = this;
    return this.inHost((host) => verifiedLink(host, ifindex, { address, linkOwnerOf }));
  }

  /** Work in the host's namespace. */
  inHost<T>(work: (host: LinkPlace) => Promise<T>): Promise<T> {
    return inSession(this.netns, work, this.openRtnl);
  }

  /** Work that waits for drivers, woken meanwhile by news of the link in these places. */
  async patiently<T>(
    places: readonly LinkPlace[],
    { link, ...options }: Waiting,
    work: (patience: Patience) => Promise<T>,
  ): Promise<T> {
    const { clock } = this;
    const { name, parentDevice } = link;
    const concerns = (news: Link) => parentDevice === undefined || news.parentDevice === parentDevice;
    const signs = linkSigns(places, { clock, concerns });
    try {
      return await work(new Patience({ ...options, link: name, clock, nextSign: signs.next }));
    } finally {
      signs.close();
    }
  }

  /** Work in a client's namespace, serialized per namespace; where that is known to be dead, per link. */
  inClient<T>(
    client: Netns | undefined,
    link: string,
    work: (client: LinkPlace | undefined) => Promise<T>,
  ): Promise<T> {
    const key = client ? fileKey(client.id) : `no namespace, link ${link}`;
    return this.#turns.run(key, () => (client ? inSession(client, work, this.openRtnl) : work(undefined)));
  }
}

/** Opens a session, runs the work and closes the socket; the namespace stays the caller's. */
export async function inSession<T>(
  netns: Netns,
  work: (session: LinkPlace) => Promise<T>,
  openRtnl: OpenRtnl,
): Promise<T> {
  const rtnl = openRtnl(netns);
  try {
    return await work({ netns, rtnl });
  } finally {
    rtnl.close();
  }
}
