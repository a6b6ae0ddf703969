import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { Fd } from "./fd.ts";
import { addressOf, call, offHeap, tryCall } from "./native.ts";
import { inNetns, type Netns } from "./netns.ts";

const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
/** include/uapi/linux/sockios.h */
const SIOCETHTOOL = 0x8946;
/** include/uapi/linux/ethtool.h */
const ETHTOOL_GDRVINFO = 3;
/** struct ifreq: char name[16], then a union that has the address of the command. */
const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;
/** struct ethtool_drvinfo: u32 cmd; char driver[32], version[32], fw_version[32], bus_info[32]; more. */
const DRVINFO_BYTES = 196;
const BUS_INFO_AT = 100;
const BUS_INFO_BYTES = 32;

/**
 * Where the driver of a link says that its device is: a PCI address for a NIC, also before Linux 5.14, from when on netlink
 * reports it. Undefined where its driver says nothing.
 * @throws {KernelError} ENODEV where there is no such link, or its driver has detached it for a reset (dev_ethtool, net/ethtool/ioctl.c).
 */
export function busInfoOf(netns: Netns, ifname: string): string | undefined {
  const name = Buffer.from(ifname);
  if (name.length === 0 || name.length >= IFNAMSIZ) throw new RangeError(`"${ifname}" is no name of a link`);
  const op = `ask for the driver of link "${ifname}"`;
  const open = () => Fd.own(call("open a socket", "socket", AF_INET, SOCK_DGRAM_CLOEXEC, 0));
  const socket = inNetns(netns, open);
  try {
    const [request, info] = [offHeap(IFREQ_BYTES), offHeap(DRVINFO_BYTES)];
    name.copy(request);
    request.writeBigUInt64LE(addressOf(info), IFNAMSIZ);
    info.writeUInt32LE(ETHTOOL_GDRVINFO);
    const answer = tryCall("ioctl_at", socket.number, SIOCETHTOOL, request);
    if (answer === -Errno.EOPNOTSUPP) return undefined;
    if (answer < 0) throw new KernelError(op, -answer);
    const text = info.toString("latin1", BUS_INFO_AT, BUS_INFO_AT + BUS_INFO_BYTES).replace(/\0.*$/s, "");
    return text === "" ? undefined : text;
  } finally {
    socket.close();
  }
}
