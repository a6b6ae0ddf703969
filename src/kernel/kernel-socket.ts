import { guarded } from "../async/index.ts";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { Fd } from "./fd.ts";
import { call, callOffThread, openPoll, POLL_READABLE, type Poll, tryCall } from "./native.ts";
import { inNetns, type Netns } from "./netns.ts";

const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
/** MSG_TRUNC, include/linux/socket.h: a datagram longer than the buffer answers its real length. */
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;

/** AF_NETLINK, include/linux/socket.h. */
export const AF_NETLINK = 16;

/** struct sockaddr_nl, include/uapi/linux/netlink.h: u16 family, u16 padding, u32 port (0: the kernel chooses), u32 groups. */
export function netlinkAddress(groups: number): Buffer {
  const address = Buffer.alloc(12);
  address.writeUInt16LE(AF_NETLINK, 0);
  address.writeUInt32LE(groups, 8);
  return address;
}

/** A PF with 256 VFs reports them in one netlink message of up to 64 KiB; a dump comes in pieces of 32 KiB at most. */
const SLAB_BYTES = 256 * 1024;
const slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
/** For receiving on other threads, which may be several at the same time. */
const spareSlabs: Buffer[] = [];

/** Which socket to open: the three arguments of socket(2). */
interface SocketKind {
  readonly domain: number;
  readonly type: number;
  readonly protocol: number;
}

/** An owned datagram socket of the kernel (netlink, raw IP): never blocks, calls back when there is something to read. */
export class KernelSocket {
  readonly #fd: Fd;
  #poll: Poll | undefined;
  #listener: () => void = () => {};

  private constructor(fd: Fd) {
    this.#fd = fd;
  }

  /**
   * Opens a socket in the namespace: it belongs to that for good.
   * @throws {KernelError}
   */
  static open(kind: SocketKind, netns: Netns): KernelSocket {
    const open = () =>
      call("open a socket", "socket", kind.domain, kind.type | SOCK_NONBLOCK | SOCK_CLOEXEC, kind.protocol);
    return new KernelSocket(Fd.own(inNetns(netns, open)));
  }

  /** Binds to an address in the kernel's form (struct sockaddr_*). */
  bind(address: Buffer): void {
    call("bind a socket", "bind", this.#fd.number, address, address.length);
  }

  /** Binds it to one peer: from then on it neither sends to nor hears any other. */
  connect(address: Buffer): void {
    call("connect a socket", "connect", this.#fd.number, address, address.length);
  }

  /** The address the socket is bound to, in the kernel's form. */
  address(): Buffer {
    const address = Buffer.alloc(128);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(address.length);
    call("read a socket's address", "getsockname", this.#fd.number, address, length);
    return address.subarray(0, length.readUInt32LE());
  }

  /** The kernel's name of a netlink socket; answers carry it. */
  get netlinkPort(): number {
    return this.address().readUInt32LE(4);
  }

  /** Sets a socket option to an int. */
  setOption(level: number, name: number, value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(value);
    call(`set socket option ${level}/${name}`, "setsockopt", this.#fd.number, level, name, bytes, 4);
  }

  /** Sends one datagram, to an address if the socket is not connected. */
  send(bytes: Buffer, address?: Buffer): void {
    call("send on a socket", "sendto", this.#fd.number, bytes, bytes.length, 0, address ?? null, address?.length ?? 0);
  }

  /** Sends one datagram from another thread: for requests that wait in the kernel. Once it is sent, netlink's answer is there. */
  async sendOffThread(bytes: Buffer): Promise<void> {
    // A descriptor of its own: this socket may be closed meanwhile, and its number be another's.
    const fd = this.#fd.dup();
    try {
      const sent = await callOffThread("send", fd.number, bytes, bytes.length, 0);
      if (sent < 0) throw new KernelError("send on a socket", -sent);
    } finally {
      fd.close();
    }
  }

  /**
   * The next datagram, as bytes of its own; undefined when none is waiting.
   * @throws {KernelError} for example ENOBUFS after messages were lost.
   */
  receive(): Buffer | undefined {
    return received(slab, tryCall("recv", this.#fd.number, slab, slab.length, MSG_DONTWAIT | MSG_TRUNC));
  }

  /** The same from another thread: of a dump the kernel makes each further piece while the one before is taken. */
  async receiveOffThread(): Promise<Buffer | undefined> {
    const fd = this.#fd.dup();
    const own = spareSlabs.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES);
    try {
      return received(own, await callOffThread("recv", fd.number, own, own.length, MSG_DONTWAIT | MSG_TRUNC));
    } finally {
      spareSlabs.push(own);
      fd.close();
    }
  }

  /**
   * Reads one datagram into the buffer, with the sender's address in the kernel's form; undefined when none is waiting. A datagram
   * that does not fit answers a length beyond the buffer's, its end being lost.
   */
  receiveFrom(into: Buffer): { readonly length: number; readonly from: Buffer } | undefined {
    const from = Buffer.alloc(128);
    const size = Buffer.alloc(4);
    size.writeUInt32LE(from.length);
    const length = tryCall("recvfrom", this.#fd.number, into, into.length, MSG_DONTWAIT | MSG_TRUNC, from, size);
    if (length === -Errno.EAGAIN || length === -Errno.EINTR) return undefined;
    if (length < 0) throw new KernelError("receive on a socket", -length);
    return { length, from: from.subarray(0, size.readUInt32LE()) };
  }

  /** Calls this listener, and no earlier one, when there is something to read. Waiting does not keep the process alive. */
  onReadable(listener: () => void): void {
    this.#listener = listener;
    this.#poll ??= openPoll(
      this.#fd.number,
      guarded("kernel-socket", () => this.#listener()),
    );
    this.#poll.keepAlive(false);
    this.#poll.watch(POLL_READABLE);
  }

  get isClosed(): boolean {
    return this.#fd.isClosed;
  }

  close(): void {
    this.#poll?.close();
    this.#fd.close();
  }
}

function received(bytes: Buffer, length: number): Buffer | undefined {
  if (length === -Errno.EAGAIN || length === -Errno.EINTR) return undefined;
  if (length < 0) throw new KernelError("receive on a socket", -length);
  if (length > bytes.length) throw new KernelError(`take a datagram of ${length} bytes`, Errno.EMSGSIZE);
  return Buffer.from(bytes.subarray(0, length));
}
