import { type Netns, NotANetnsError } from "../../kernel/index.ts";
import { type HostLinks, NetdevError } from "../../netdev/index.ts";
import type { OwnedFd } from "../../nsm/index.ts";

/** A handle of the namespace that a client has passed. @throws {NetdevError} when it is none, or the host's own. */
export function clientNetns(fd: OwnedFd, links: Pick<HostLinks, "netns" | "netnsOf">): Netns {
  const client = open(fd, links);
  if (!client.isSame(links.netns)) return client;
  client.close();
  throw new NetdevError({ kind: "host-namespace" });
}

function open(fd: OwnedFd, { netnsOf }: Pick<HostLinks, "netnsOf">): Netns {
  try {
    return netnsOf(fd);
  } catch (error) {
    if (!(error instanceof NotANetnsError)) throw error;
    throw new NetdevError({ kind: "not-a-namespace", problem: error.message }, { cause: error });
  }
}
