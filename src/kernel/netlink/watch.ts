import { guarded } from "../../async/index.ts";
import { KernelError } from "../error.ts";
import type { KernelSocket } from "../kernel-socket.ts";
import type { Netns } from "../netns.ts";
import { type Address, decodeAddress, RTM_DELADDR, RTM_NEWADDR } from "./address.ts";
import { decodeLink, type Link, RTM_DELLINK, RTM_NEWLINK } from "./link.ts";
import { decodeMessages, type NetlinkMessage } from "./message.ts";
import { openNetlinkSocket } from "./open-socket.ts";
import { type DefaultRoute, decodeDefaultRoute, RTM_DELROUTE, RTM_NEWROUTE } from "./route.ts";

// enum rtnetlink_groups, include/uapi/linux/rtnetlink.h, as bits of sockaddr_nl.
const GROUPS = {
  link: 1 << 0,
  "ipv4-address": 1 << 4,
  "ipv4-route": 1 << 6,
  "ipv6-address": 1 << 8,
  "ipv6-route": 1 << 10,
} as const;

/** RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE. */
export type NetlinkGroup = keyof typeof GROUPS;

/** What a watch reports. */
export type NetlinkEvent =
  | { readonly kind: "new-link" | "gone-link"; readonly link: Link }
  | { readonly kind: "new-address" | "gone-address"; readonly address: Address }
  /** One has come or gone; other routes cause no event. */
  | { readonly kind: "default-route"; readonly route: DefaultRoute }
  /** Events were dropped: only a new query of the kernel reports what is so. */
  | { readonly kind: "lost" };

/** Reports changes in a namespace, until the function it returns is called. */
export function watchGroups(
  netns: Netns,
  groups: readonly NetlinkGroup[],
  listener: (event: NetlinkEvent) => void,
): () => void {
  const mask = groups.reduce((bits, group) => bits | GROUPS[group], 0);
  const socket = openNetlinkSocket(netns, { groups: mask });
  let watching = true;
  const notify = guarded("kernel-socket", listener);
  socket.onReadable(
    guarded(
      "kernel-socket",
      () => {
        for (const event of drain(socket)) if (watching) notify(event);
      },
      () => notify({ kind: "lost" }),
    ),
  );
  return () => {
    watching = false;
    socket.close();
  };
}

/** So many datagrams in one go, then others get their turn: a process may cause events as fast as we read them. */
const DATAGRAMS_PER_TURN = 64;

/** What has come by now, or a part of it: the socket says again that there is more. */
export function drain(socket: Pick<KernelSocket, "receive">): NetlinkEvent[] {
  const events: NetlinkEvent[] = [];
  try {
    for (let turn = 0; turn < DATAGRAMS_PER_TURN; turn++) {
      const bytes = socket.receive();
      if (!bytes) break;
      events.push(...decodeMessages(bytes).flatMap(eventsOf));
    }
  } catch (error) {
    // ENOBUFS, or bytes that make no sense: in both cases something was missed.
    if (!(error instanceof KernelError) && !(error instanceof RangeError)) throw error;
    events.push({ kind: "lost" });
  }
  return events;
}

function eventsOf(message: NetlinkMessage): NetlinkEvent[] {
  switch (message.type) {
    case RTM_NEWLINK:
      return [{ kind: "new-link", link: decodeLink(message) }];
    case RTM_DELLINK:
      return [{ kind: "gone-link", link: decodeLink(message) }];
    case RTM_NEWADDR:
    case RTM_DELADDR: {
      const address = decodeAddress(message);
      const kind = message.type === RTM_NEWADDR ? "new-address" : "gone-address";
      return address ? [{ kind, address }] : [];
    }
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      const route = decodeDefaultRoute(message);
      return route ? [{ kind: "default-route", route }] : [];
    }
    default:
      return [];
  }
}
