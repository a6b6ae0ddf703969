import { Errno } from "../errno.ts";
import { KernelError } from "../error.ts";
import { AF_NETLINK, KernelSocket, netlinkAddress } from "../kernel-socket.ts";
import type { Netns } from "../netns.ts";
import type { NetlinkPipe } from "./conversation.ts";

const SOCK_RAW = 3;
const NETLINK_ROUTE = 0;
export const NETLINK_GENERIC = 16;
const SOL_NETLINK = 270;
// Socket options, include/uapi/linux/netlink.h: no request quoted in an error, words with it, filters of dumps honoured.
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;

/** A PF with 256 VFs reports them in one message of up to 64 KiB; a dump comes in pieces of 32 KiB at most. */
const SLAB_BYTES = 256 * 1024;
const slab = Buffer.allocUnsafeSlow(SLAB_BYTES);

/** A route socket in the namespace; `groups` is a mask of what it hears besides answers. */
export function openRouteSocket(netns: Netns, groups = 0): KernelSocket {
  return openSocket(netns, { protocol: NETLINK_ROUTE, groups });
}

function openSocket(
  netns: Netns,
  { protocol, groups }: { readonly protocol: number; readonly groups: number },
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

/** The next datagram of a socket, as bytes of its own. @throws {KernelError} ENOBUFS after some were lost. */
export function receiveDatagram(socket: Pick<KernelSocket, "receive">): Buffer | undefined {
  const length = socket.receive(slab);
  if (length === undefined) return undefined;
  return copyOf(slab, length);
}

/** Buffers for receiving on other threads, which may be several at the same time. */
const spareSlabs: Buffer[] = [];

/** The same on another thread, for a dump. */
async function receiveOffThread(socket: KernelSocket): Promise<Buffer | undefined> {
  const own = spareSlabs.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES);
  try {
    const length = await socket.receiveOffThread(own);
    return length === undefined ? undefined : copyOf(own, length);
  } finally {
    spareSlabs.push(own);
  }
}

function copyOf(bytes: Buffer, length: number): Buffer {
  if (length > bytes.length) throw new KernelError(`take a netlink message of ${length} bytes`, Errno.EMSGSIZE);
  return Buffer.from(bytes.subarray(0, length));
}

export function openPipe(netns: Netns, protocol = NETLINK_ROUTE): NetlinkPipe {
  const socket = openSocket(netns, { protocol, groups: 0 });
  return {
    port: socket.address().readUInt32LE(4),
    send: (bytes) => socket.sendOffThread(bytes),
    receive: () => receiveDatagram(socket),
    receiveDumped: () => receiveOffThread(socket),
    close: () => socket.close(),
  };
}
