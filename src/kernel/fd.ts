import { devOf } from "./device-node.ts";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { call, offHeap, tryCall } from "./native.ts";

/** F_DUPFD_CLOEXEC, include/uapi/linux/fcntl.h. */
const F_DUPFD_CLOEXEC = 1030;
/** O_PATH | O_CLOEXEC, include/uapi/asm-generic/fcntl.h. */
const O_PATH = 0o10000000;
const O_CLOEXEC = 0o2000000;

/** include/uapi/linux/fcntl.h, include/uapi/linux/stat.h (Linux 4.11). */
const AT_EMPTY_PATH = 0x1000;
const AT_STATX_DONT_SYNC = 0x4000;
const STATX_INO = 0x100;
/** Offsets in struct statx, 256 bytes. */
const statx = { ino: 0x20, devMajor: 0x88, devMinor: 0x8c } as const;
const statxArea = offHeap(256);

/** What a descriptor refers to: st_dev and st_ino, by which NSM names it on the wire. */
export interface FileId {
  readonly dev: bigint;
  readonly ino: bigint;
}

/** A descriptor that the caller owns, as an argument: it stays theirs. */
export interface BorrowedFd {
  readonly number: number;
}

/** An owned descriptor. Its holder closes it, once. */
export class Fd {
  /** In tests: called with every descriptor that is owned or let go, so that a leak can be named. */
  static trace: ((what: "own" | "close", fd: number) => void) | undefined;
  #number: number;

  private constructor(number: number) {
    this.#number = number;
    Fd.trace?.("own", number);
  }

  /** Takes over a raw descriptor. */
  static own(number: number): Fd {
    return new Fd(number);
  }

  /**
   * A handle of the file itself (O_PATH): enough to pass it on or to open it again, without opening what it refers to.
   * The final symlink is followed.
   * @throws {KernelError} for example ENOENT.
   */
  static ofPath(path: string): Fd {
    return new Fd(call(`open ${path}`, "open", path, O_PATH | O_CLOEXEC, 0));
  }

  /** The raw number, for the duration of one call. */
  get number(): number {
    if (this.#number < 0) throw new KernelError("use a closed descriptor", Errno.EBADF);
    return this.#number;
  }

  get isClosed(): boolean {
    return this.#number < 0;
  }

  /** A second descriptor of a file, owned by the caller, closed on exec. */
  static dupOf(fd: BorrowedFd): Fd {
    return new Fd(call("duplicate a descriptor", "fcntl", fd.number, F_DUPFD_CLOEXEC, 0));
  }

  /** A second descriptor of the same file, owned by the caller, closed on exec. */
  dup(): Fd {
    return Fd.dupOf(this);
  }

  /**
   * What the descriptor refers to. A peer may pass a file of a file system that it serves itself (FUSE) and never answers:
   * the kernel reports what it knows already and does not query the peer.
   */
  id(): FileId {
    call("look at a descriptor", "statx", this.number, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, statxArea);
    // st_dev as stat(2) gives it, which is what peers put into an inode URL.
    const [major, minor] = [statxArea.readUInt32LE(statx.devMajor), statxArea.readUInt32LE(statx.devMinor)];
    return { dev: devOf({ major, minor }), ino: statxArea.readBigUInt64LE(statx.ino) };
  }

  /** Closes it; a second time does nothing. */
  close(): void {
    if (this.#number < 0) return;
    Fd.trace?.("close", this.#number);
    tryCall("close", this.#number);
    this.#number = -1;
  }
}

/** Text form of a file id, for maps and logs. */
export function fileKey(id: FileId): string {
  return `${id.dev}/${id.ino}`;
}
