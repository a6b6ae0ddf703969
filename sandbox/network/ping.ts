import { type Clock, systemClock } from "../../src/async/index.ts";
import { KernelSocket, type Netns } from "../../src/kernel/index.ts";
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
  /** A second by default, in ms. */
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
  const pinger = new Pinger(options);
  try {
    return await pinger.ping();
  } finally {
    pinger.close();
  }
}

/** Sends one echo request after the other over one socket: for who pings for long. */
export class Pinger {
  readonly #options: PingOptions;
  readonly #version: IpVersion;
  readonly #socket: KernelSocket;
  #heard: (reply: Echo) => void = () => {};

  constructor(options: PingOptions) {
    this.#options = options;
    this.#version = options.to.includes(":") ? 6 : 4;
    this.#socket = KernelSocket.open(kinds[this.#version], options.netns);
    this.#listen();
  }

  /** As `ping()`; one at a time. */
  async ping(): Promise<number | undefined> {
    const { to, timeoutMs = 1000, clock = systemClock } = this.#options;
    pings = (pings + 1) & 0xffff;
    const echo: Echo = { id: process.pid & 0xffff, sequence: pings };
    const answered = new AbortController();
    this.#heard = ({ id, sequence }) => {
      if (id === echo.id && sequence === echo.sequence) answered.abort();
    };
    const sentAt = clock.monotonicMs();
    this.#socket.send(encodeEchoRequest(this.#version, echo), socketAddress(this.#version, to));
    await clock.sleep(timeoutMs, answered.signal).catch(() => {}); // an answer ends the sleep
    return answered.signal.aborted ? clock.monotonicMs() - sentAt : undefined;
  }

  close(): void {
    this.#socket.close();
  }

  /** A raw socket hears every echo reply of its namespace: only ours counts. */
  #listen(): void {
    const packet = Buffer.alloc(2048);
    this.#socket.onReadable(() => {
      for (let length = this.#socket.receive(packet); length !== undefined; length = this.#socket.receive(packet)) {
        const reply = decodeEchoReply(this.#version, packet.subarray(0, length));
        if (reply) this.#heard(reply);
      }
    });
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

/** struct sockaddr_in or sockaddr_in6 (include/uapi/linux/in.h, in6.h), without a port. */
function socketAddress(version: IpVersion, address: string): Buffer {
  const bytes = Buffer.alloc(version === 4 ? 16 : 28);
  bytes.writeUInt16LE(version === 4 ? AF_INET : AF_INET6, 0);
  addressBytes(address).copy(bytes, version === 4 ? 4 : 8);
  return bytes;
}
