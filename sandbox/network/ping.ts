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

  /** As `ping()`; one at a time. Undefined at once when the signal ends the waiting. */
  async ping(signal?: AbortSignal): Promise<number | undefined> {
    const { to, timeoutMs = 1000, clock = systemClock } = this.#options;
    pings = (pings + 1) & 0xffff;
    const echo: Echo = { id: process.pid & 0xffff, sequence: pings };
    const answered = new AbortController();
    this.#heard = ({ id, sequence }) => {
      if (id === echo.id && sequence === echo.sequence) answered.abort();
    };
    const sentAt = clock.monotonicMs();
    this.#socket.send(encodeEchoRequest(this.#version, echo), socketAddress(this.#version, to));
    const ends = signal ? AbortSignal.any([answered.signal, signal]) : answered.signal;
    await clock.sleep(timeoutMs, ends).catch(() => {}); // an answer ends the sleep
    return answered.signal.aborted ? clock.monotonicMs() - sentAt : undefined;
  }

  close(): void {
    this.#socket.close();
  }

  /** A raw socket hears every echo reply of its namespace: only ours counts. */
  #listen(): void {
    this.#socket.onReadable(() => {
      for (let packet = this.#socket.receive(); packet; packet = this.#socket.receive()) {
        const reply = decodeEchoReply(this.#version, packet);
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

/** Round trips that an answer may need: the neighbour's address, the echo, and one to spare. */
const FENCE_ROUNDS = 3;

/**
 * Whether an echo request is answered, by what arrives and not by the time that passes: requests to a neighbour of the same link leave
 * after it on the same way, and when they are answered an answer to it would be there too.
 */
export async function isAnsweredBefore(neighbour: string, options: Omit<PingOptions, "timeoutMs">): Promise<boolean> {
  const fence = { ...options, to: neighbour };
  const failed = () => new Error(`Cannot ping ${options.to} before ${neighbour}: that one does not answer`);
  if ((await pingUntilAnswered({ ...fence, tries: 20 })) === undefined) throw failed();
  const [probing, fencing] = [
    new Pinger({ ...options, timeoutMs: 60_000 }),
    new Pinger({ ...fence, timeoutMs: 20_000 }),
  ];
  const over = new AbortController();
  try {
    const answer = probing.ping(over.signal);
    for (let round = 0; round < FENCE_ROUNDS; round++) if ((await fencing.ping()) === undefined) throw failed();
    over.abort();
    return (await answer) !== undefined;
  } finally {
    over.abort();
    probing.close();
    fencing.close();
  }
}

/** struct sockaddr_in or sockaddr_in6 (include/uapi/linux/in.h, in6.h), without a port. */
function socketAddress(version: IpVersion, address: string): Buffer {
  const bytes = Buffer.alloc(version === 4 ? 16 : 28);
  bytes.writeUInt16LE(version === 4 ? AF_INET : AF_INET6, 0);
  addressBytes(address).copy(bytes, version === 4 ? 4 : 8);
  return bytes;
}
