// What a driver answers to ethtool's older interface: where its device is, before Linux 5.14 by no other way; classification rules, on all
// kernels; RSS, before Linux 6.2.
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { Fd } from "./fd.ts";
import { addressOf, call, callOffThread, offHeap, tryCall } from "./native.ts";
import { inNetns, type Netns } from "./netns.ts";

const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
/** include/uapi/linux/sockios.h */
const SIOCETHTOOL = 0x8946;
const SIOCGHWTSTAMP = 0x89b1;
/** struct ifreq: char name[16], then a union that has the address of the command. */
const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;

/** include/uapi/linux/ethtool.h: struct ethtool_drvinfo: u32 cmd; char driver[32], version[32], fw_version[32], bus_info[32]; more. */
const ETHTOOL_GDRVINFO = 3;
const DRVINFO = { busInfo: 100, busInfoBytes: 32, size: 196 } as const;

/** include/uapi/linux/ethtool.h: struct ethtool_rxnfc and, with the table and the key behind it, ethtool_rxfh. */
const ETHTOOL_GRXCLSRLCNT = 0x2e;
const RXNFC = { ruleCount: 184, size: 192 } as const;
const ETHTOOL_GRSSH = 0x46;
const RXFH = { tableEntries: 8, keyBytes: 12, hash: 16, config: 24 } as const;
/** struct hwtstamp_config, include/uapi/linux/net_tstamp.h: flags, tx_type, rx_filter. */
const HWTSTAMP_BYTES = 12;

/** The socket and the name that ethtool's ioctls go by. The name may be another link's by now: the caller reads it back. */
export class EthtoolIoctl {
  readonly #socket: Fd;
  readonly #name: Buffer;

  private constructor(socket: Fd, name: Buffer) {
    this.#socket = socket;
    this.#name = name;
  }

  /** @throws {KernelError} {RangeError} for what is no name of a link. */
  static open(netns: Netns, ifname: string): EthtoolIoctl {
    const name = Buffer.from(ifname);
    if (name.length === 0 || name.length >= IFNAMSIZ) throw new RangeError(`"${ifname}" is no name of a link`);
    const open = () => Fd.own(call("open a socket", "socket", AF_INET, SOCK_DGRAM_CLOEXEC, 0));
    return new EthtoolIoctl(inNetns(netns, open), name);
  }

  /** Blocks no longer than a netlink request: drivers answer from memory. @throws {KernelError} ENODEV */
  busInfo(): string | undefined {
    const info = offHeap(DRVINFO.size);
    info.writeUInt32LE(ETHTOOL_GDRVINFO);
    const answer = tryCall("ioctl_at", this.#socket.number, SIOCETHTOOL, this.#ifreq(info));
    if (answer === -Errno.EOPNOTSUPP) return undefined;
    if (answer < 0) throw new KernelError(`query the driver of link "${this.#name}"`, -answer);
    const end = DRVINFO.busInfo + DRVINFO.busInfoBytes;
    const text = info.toString("latin1", DRVINFO.busInfo, end).replace(/\0.*$/s, "");
    return text === "" ? undefined : text;
  }

  /** How many classification rules (n-tuples) steer packets to queues. @throws {KernelError} EOPNOTSUPP */
  async ruleCount(): Promise<number> {
    const area = offHeap(RXNFC.size);
    area.writeUInt32LE(ETHTOOL_GRXCLSRLCNT);
    await this.#ioctl("count the classification rules", SIOCETHTOOL, area);
    return area.readUInt32LE(RXNFC.ruleCount);
  }

  /** How received packets are spread over queues: function, table and key in one. @throws {KernelError} EOPNOTSUPP */
  async rss(): Promise<Buffer> {
    const sizes = offHeap(RXFH.config);
    sizes.writeUInt32LE(ETHTOOL_GRSSH);
    await this.#ioctl("read the RSS sizes", SIOCETHTOOL, sizes);
    const bytes = RXFH.config + sizes.readUInt32LE(RXFH.tableEntries) * 4 + sizes.readUInt32LE(RXFH.keyBytes);
    const area = offHeap(bytes);
    sizes.copy(area, 0, 0, RXFH.config);
    await this.#ioctl("read the RSS table", SIOCETHTOOL, area);
    return area.subarray(RXFH.tableEntries, bytes);
  }

  /** Which packets the hardware stamps with the time. @throws {KernelError} EOPNOTSUPP */
  async timestamping(): Promise<Buffer> {
    const area = offHeap(HWTSTAMP_BYTES);
    await this.#ioctl("read the timestamping", SIOCGHWTSTAMP, area);
    return area.subarray(0, HWTSTAMP_BYTES);
  }

  close(): void {
    this.#socket.close();
  }

  async #ioctl(what: string, request: number, area: Buffer): Promise<void> {
    const answer = await callOffThread("ioctl_at", this.#socket.number, request, this.#ifreq(area));
    if (answer < 0) throw new KernelError(`${what} of link "${this.#name}"`, -answer);
  }

  #ifreq(area: Buffer): Buffer {
    const ifreq = offHeap(IFREQ_BYTES);
    this.#name.copy(ifreq);
    ifreq.writeBigUInt64LE(addressOf(area), IFNAMSIZ);
    return ifreq;
  }
}

/**
 * Where the driver of a link says that its device is: a PCI address for a NIC, also before Linux 5.14, from when on netlink
 * reports it. Undefined where its driver says nothing.
 * @throws {KernelError} ENODEV where there is no such link, or its driver has detached it for a reset (dev_ethtool, net/ethtool/ioctl.c).
 */
export function busInfoOf(netns: Netns, ifname: string): string | undefined {
  const ioctl = EthtoolIoctl.open(netns, ifname);
  try {
    return ioctl.busInfo();
  } finally {
    ioctl.close();
  }
}
