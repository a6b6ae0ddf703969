import { Netns, NotANetnsError } from "../../kernel/index.ts";
import { NetdevError } from "../../netdev/index.ts";
import type { OwnedFd } from "../../nsm/index.ts";

/** A handle of the namespace that a client has passed. @throws {NetdevError} when it is none, or the host's own. */
export function clientNetns(fd: OwnedFd, host: Netns): Netns {
  const client = open(fd);
  if (!client.isSame(host)) return client;
  client.close();
  throw new NetdevError({ kind: "host-namespace" });
}

function open(fd: OwnedFd): Netns {
  try {
    return Netns.fromFd(fd);
  } catch (error) {
    if (!(error instanceof NotANetnsError)) throw error;
    throw new NetdevError({ kind: "not-a-namespace", problem: error.message }, { cause: error });
  }
}
