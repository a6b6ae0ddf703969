import { type Clock, systemClock } from "../src/async/index.ts";
import { KernelSocket, type Netns } from "../src/kernel/index.ts";
import { decodeEchoReply, type Echo, encodeEchoRequest, type IpVersion } from "./icmp.ts";
import { addressBytes } from "./ip-address.ts";

// include/linux/socket.h and include/uapi/linux/in.h
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_RAW = 3;
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;

const kinds = {
  4: { domain: AF_INET, type: SOCK_RAW, protocol: IPPROTO_ICMP },
  6: { domain: AF_INET6, type: SOCK_RAW, protocol: IPPROTO_ICMPV6 },
} as const;

export interface PingOptions {
  /** Where to ping from: the pod's namespace. Needs CAP_NET_RAW over it. */
  readonly netns: Netns;
  /** "172.16.1.0" or "2001:db8::". */
  readonly to: string;
  /** A second unless told, in ms. */
  readonly timeoutMs?: number;
  readonly clock?: Clock;
}

let pings = 0;

/**
 * One echo request from inside a namespace, as ping(8) sends it.
 * @returns the round trip in ms; undefined when no answer came in time.
 * @throws {KernelError} when it cannot be sent, for example ENETUNREACH without a route.
 */
export async function ping(options: PingOptions): Promise<number | undefined> {
  const { netns, to, timeoutMs = 1000, clock = systemClock } = options;
  const version: IpVersion = to.includes(":") ? 6 : 4;
  pings = (pings + 1) & 0xffff;
  const echo: Echo = { id: process.pid & 0xffff, sequence: pings };
  const socket = KernelSocket.open(kinds[version], netns);
  const answered = new AbortController();
  try {
    awaitReply(socket, version, echo, () => answered.abort());
    const sentAt = clock.monotonicMs();
    socket.send(encodeEchoRequest(version, echo), socketAddress(version, to));
    await clock.sleep(timeoutMs, answered.signal).catch(() => {}); // an answer ends the sleep
    return answered.signal.aborted ? clock.monotonicMs() - sentAt : undefined;
  } finally {
    socket.close();
  }
}

/** Pings until an answer comes: fresh links need a moment for their neighbours. */
export async function pingUntilAnswered(
  options: PingOptions & { readonly tries: number },
): Promise<number | undefined> {
  for (let tries = options.tries; tries > 0; tries--) {
    const rttMs = await ping(options);
    if (rttMs !== undefined) return rttMs;
  }
  return undefined;
}

/** A raw socket hears every echo reply of its namespace: only ours counts. */
function awaitReply(socket: KernelSocket, version: IpVersion, echo: Echo, answered: () => void): void {
  const packet = Buffer.alloc(2048);
  socket.onReadable(() => {
    for (let length = socket.receive(packet); length !== undefined; length = socket.receive(packet)) {
      const reply = decodeEchoReply(version, packet.subarray(0, length));
      if (reply?.id === echo.id && reply.sequence === echo.sequence) answered();
    }
  });
}

/** struct sockaddr_in or sockaddr_in6 (include/uapi/linux/in.h, in6.h), without a port. */
function socketAddress(version: IpVersion, address: string): Buffer {
  const bytes = Buffer.alloc(version === 4 ? 16 : 28);
  bytes.writeUInt16LE(version === 4 ? AF_INET : AF_INET6, 0);
  addressBytes(address).copy(bytes, version === 4 ? 4 : 8);
  return bytes;
}
