// sendmsg and recvmsg with descriptors. The structures lie in memory that never moves; there is one set for the whole
// process, since each call is synchronous and on the main thread.
import { Fd } from "./fd.ts";
import { addressOf, offHeap, tryCall } from "./native.ts";

/** SOL_SOCKET and SCM_RIGHTS, include/linux/socket.h. */
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
/** SO_PEERCRED, socket(7): struct ucred { pid, uid, gid } of the process that called connect or listen. */
const SO_PEERCRED = 17;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;

/** SCM_MAX_FD, include/net/scm.h: no message carries more. */
const MAX_FDS = 253;
/** struct cmsghdr on 64-bit: size_t len, int level, int type; data behind it, everything aligned to 8. */
const CMSG_HEADER_BYTES = 16;
const SLAB_BYTES = 64 * 1024;

// struct msghdr on 64-bit: name, namelen, iov, iovlen, control, controllen, flags. 56 bytes.
const HEADER = { iov: 16, iovlen: 24, control: 32, controllen: 40, flags: 48, size: 56 } as const;

interface Area {
  readonly header: Buffer;
  readonly iov: Buffer;
  readonly control: Buffer;
}

function makeArea(data: Buffer, controlBytes: number): Area {
  const area = { header: offHeap(HEADER.size), iov: offHeap(16), control: offHeap(controlBytes) };
  area.iov.writeBigUInt64LE(addressOf(data), 0);
  area.header.writeBigUInt64LE(addressOf(area.iov), HEADER.iov);
  area.header.writeBigUInt64LE(1n, HEADER.iovlen);
  area.header.writeBigUInt64LE(addressOf(area.control), HEADER.control);
  return area;
}

const slab = offHeap(SLAB_BYTES);
const inbound = makeArea(slab, CMSG_HEADER_BYTES + align8(MAX_FDS * 4));
const oneByte = offHeap(1);
const outbound = makeArea(oneByte, CMSG_HEADER_BYTES + 8);

/** What one read brought. */
interface Received {
  /** Bytes read, 0 at the end of the stream; or minus the errno. */
  readonly result: number;
  /** The bytes: a view that the next read overwrites. */
  readonly bytes: Buffer;
  /** Descriptors, owned by the caller. */
  readonly fds: readonly Fd[];
  /** The kernel had to drop descriptors: we are out of them (EMFILE), or the message carried too many. */
  readonly truncated: boolean;
}

/** One recvmsg. A plain read would make the kernel throw passed descriptors away. */
export function receiveMessage(socket: number): Received {
  inbound.iov.writeBigUInt64LE(BigInt(SLAB_BYTES), 8);
  inbound.header.writeBigUInt64LE(BigInt(CMSG_HEADER_BYTES + align8(MAX_FDS * 4)), HEADER.controllen);
  inbound.header.writeInt32LE(0, HEADER.flags);
  const result = tryCall("recvmsg", socket, inbound.header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (result < 0) return { result, bytes: slab.subarray(0, 0), fds: [], truncated: false };
  return {
    result,
    bytes: slab.subarray(0, result),
    fds: readRights(inbound.control.subarray(0, Number(inbound.header.readBigUInt64LE(HEADER.controllen)))),
    truncated: (inbound.header.readInt32LE(HEADER.flags) & MSG_CTRUNC) !== 0,
  };
}

function readRights(control: Buffer): Fd[] {
  const fds: Fd[] = [];
  for (let at = 0; at + CMSG_HEADER_BYTES <= control.length; ) {
    const length = Number(control.readBigUInt64LE(at));
    if (length < CMSG_HEADER_BYTES) break;
    if (control.readInt32LE(at + 8) === SOL_SOCKET && control.readInt32LE(at + 12) === SCM_RIGHTS) {
      const end = Math.min(at + length, control.length);
      for (let fd = at + CMSG_HEADER_BYTES; fd + 4 <= end; fd += 4) fds.push(Fd.own(control.readInt32LE(fd)));
    }
    at += align8(length);
  }
  return fds;
}

/**
 * Sends one byte that carries one descriptor, the form NSM peers use: nsm-protocol §6.2.
 * Answers 1, or minus the errno.
 */
export function sendByteWithFd(socket: number, byte: number, fd: Fd): number {
  oneByte[0] = byte;
  outbound.iov.writeBigUInt64LE(1n, 8);
  outbound.control.writeBigUInt64LE(BigInt(CMSG_HEADER_BYTES + 4), 0);
  outbound.control.writeInt32LE(SOL_SOCKET, 8);
  outbound.control.writeInt32LE(SCM_RIGHTS, 12);
  outbound.control.writeInt32LE(fd.number, CMSG_HEADER_BYTES);
  outbound.header.writeBigUInt64LE(BigInt(CMSG_HEADER_BYTES + 8), HEADER.controllen);
  return tryCall("sendmsg", socket, outbound.header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/** The process that made the other end; undefined where the kernel does not say. */
export function readPeerPid(socket: number): number | undefined {
  const ucred = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(ucred.length);
  const failed = tryCall("getsockopt", socket, SOL_SOCKET, SO_PEERCRED, ucred, length);
  return failed === 0 && ucred.readInt32LE(0) > 0 ? ucred.readInt32LE(0) : undefined;
}

/** Small pieces are joined up to this size, so that a burst of frames is one call. */
const joined = offHeap(64 * 1024);
const PIECES_PER_CALL = 256;

/**
 * Sends plain bytes: of the first piece from `at`, and of the pieces behind it while they fit into one call.
 * Answers how many bytes the kernel took, or minus the errno.
 */
export function sendPieces(socket: number, pieces: readonly Buffer[], at: number): number {
  const first = pieces[0]?.subarray(at) ?? joined.subarray(0, 0);
  if (pieces.length < 2 || first.length >= joined.length) return sendBytes(socket, first);
  let length = first.copy(joined);
  for (const piece of pieces.slice(1, PIECES_PER_CALL)) {
    length += piece.copy(joined, length);
    if (length === joined.length) break;
  }
  return sendBytes(socket, joined.subarray(0, length));
}

function sendBytes(socket: number, bytes: Buffer): number {
  return tryCall("send", socket, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

function align8(bytes: number): number {
  return (bytes + 7) & ~7;
}
