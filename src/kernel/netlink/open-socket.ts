import { Errno } from "../errno.ts";
import { KernelError } from "../error.ts";
import { AF_NETLINK, KernelSocket, netlinkAddress } from "../kernel-socket.ts";
import type { Netns } from "../netns.ts";

const SOCK_RAW = 3;
const NETLINK_ROUTE = 0;
export const NETLINK_GENERIC = 16;
const SOL_NETLINK = 270;
// Socket options, include/uapi/linux/netlink.h: no request quoted in an error, words with it, filters of dumps honoured.
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;

/** A netlink socket in the namespace, to the kernel alone; `groups` is a mask of what it hears besides answers. */
export function openNetlinkSocket(
  netns: Netns,
  { protocol = NETLINK_ROUTE, groups = 0 }: { readonly protocol?: number; readonly groups?: number } = {},
): KernelSocket {
  const socket = KernelSocket.open({ domain: AF_NETLINK, type: SOCK_RAW, protocol }, netns);
  try {
    socket.bind(netlinkAddress(groups));
    // To the kernel (port 0): messages of other processes then end in ECONNREFUSED on their side (netlink_getsockbyportid).
    socket.connect(netlinkAddress(0));
    for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK]) setIfKnown(socket, option);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/** Older kernels (strict checking: before 4.20) work without. */
function setIfKnown(socket: KernelSocket, option: number): void {
  try {
    socket.setOption(SOL_NETLINK, option, 1);
  } catch (error) {
    if (!(error instanceof KernelError) || error.errno !== Errno.ENOPROTOOPT) throw error;
  }
}
