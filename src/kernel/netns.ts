import { access, readFileSync, readlinkSync, writeFileSync, writeSync } from "node:fs";
import { systemClock } from "../async/index.ts";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { type BorrowedFd, Fd, type FileId } from "./fd.ts";
import { call, exitNow, tryCall } from "./native.ts";

/** CLONE_NEWNET, include/uapi/linux/sched.h. */
const CLONE_NEWNET = 0x40000000;
/** NS_GET_NSTYPE = _IO(0xb7, 0x3), include/uapi/linux/nsfs.h (Linux 4.11). */
const NS_GET_NSTYPE = 0xb703;
const O_RDONLY_CLOEXEC = 0o2000000;
/** EX_SOFTWARE of sysexits.h. */
const FAULT_EXIT_CODE = 70;
const STANDARD_ERROR = 2;

/** What was given is not a network namespace. */
export class NotANetnsError extends Error {
  override readonly name = "NotANetnsError";
}

/** An owned handle of a network namespace. It keeps the namespace alive until it is closed. */
export class Netns {
  readonly fd: Fd;
  readonly id: FileId;

  private constructor(fd: Fd) {
    this.fd = fd;
    this.id = fd.id();
  }

  /**
   * A handle of the namespace that a descriptor refers to; the descriptor stays the caller's. An O_PATH descriptor will do.
   * @throws {NotANetnsError} when it refers to anything else.
   */
  static fromFd(fd: BorrowedFd): Netns {
    // A peer may have passed anything. Opening a FIFO may block, opening a device may set it going, a FUSE file queries the process
    // that serves it; but the name that the kernel gives an open file is free of all that, and a path begins with a slash.
    const name = readlinkSync(`/proc/self/fd/${fd.number}`);
    if (!/^net:\[\d+\]$/.test(name)) {
      const isNamespace = /^[a-z_]+:\[\d+\]$/.test(name) && !/^(socket|pipe):/.test(name);
      throw notANetns("the received descriptor", isNamespace ? "a namespace of another kind" : "no namespace at all");
    }
    return Netns.openPath(`/proc/self/fd/${fd.number}`, "the received descriptor");
  }

  /**
   * A handle of the namespace at a path such as /proc/1/ns/net or /run/netns/blue.
   * @throws {NotANetnsError} when something else lies there.
   * @throws {KernelError} when it cannot be opened.
   */
  static openPath(path: string, name = path): Netns {
    const opened = tryCall("open", path, O_RDONLY_CLOEXEC, 0);
    // A socket cannot be opened through its /proc link: ENXIO (unix_socket(7)).
    if (opened === -Errno.ENXIO || opened === -Errno.ENODEV) throw notANetns(name, "something that cannot be opened");
    if (opened < 0) throw new KernelError(`open the network namespace ${name}`, -opened);
    const fd = Fd.own(opened);
    const type = tryCall("ioctl", fd.number, NS_GET_NSTYPE, 0);
    if (type === CLONE_NEWNET) return new Netns(fd);
    fd.close();
    throw notANetns(name, type > 0 ? "a namespace of another kind" : "no namespace at all");
  }

  /** The namespace of this process. */
  static current(): Netns {
    return Netns.openPath("/proc/thread-self/ns/net");
  }

  /**
   * A new, empty namespace; this process stays where it is. Needs CAP_SYS_ADMIN.
   * @throws {KernelError} EPERM without the privilege.
   */
  static create(): Netns {
    const before = Netns.current();
    try {
      call("make a network namespace", "unshare", CLONE_NEWNET);
      try {
        return Netns.current();
      } finally {
        comeBack(before);
      }
    } finally {
      before.close();
    }
  }

  /** Whether both are the same namespace. */
  isSame(other: Netns): boolean {
    return this.id.dev === other.id.dev && this.id.ino === other.id.ino;
  }

  /** A second handle, owned by the caller. */
  dup(): Netns {
    return new Netns(this.fd.dup());
  }

  close(): void {
    this.fd.close();
  }

  /**
   * A setting of this namespace beneath /proc/sys, for example "net/ipv6/conf/eth0/disable_ipv6".
   * @throws the file system's error, for example ENOENT.
   */
  readSysctl(name: string): string {
    return inNetns(this, () => readFileSync(sysctlPath(name), "utf8").trimEnd());
  }

  /** Changes a setting of this namespace; see `readSysctl`. */
  writeSysctl(name: string, value: string): void {
    inNetns(this, () => writeFileSync(sysctlPath(name), value));
  }
}

/**
 * Runs a piece of synchronous work inside a namespace: enter, work, return are one act. Sockets opened inside belong to the
 * namespace for good; the process does not stay. If the way back failed, everything after would happen in a pod's
 * namespace, so the process ends at once, with a line in the log's form and exit code 70.
 *
 * No other thread comes along: a thread is born into the namespace of its maker (clone(2)), and those of libuv's pool, on which
 * files are read and writes to the kernel wait, are made before the first entry.
 * @throws whatever the work throws; {KernelError} when the namespace cannot be entered.
 */
export function inNetns<T>(netns: Netns, work: () => T): T {
  const before = Netns.current();
  try {
    if (before.isSame(netns)) return refusePromise(work());
    startPool();
    call("enter a network namespace", "setns", netns.fd.number, CLONE_NEWNET);
    try {
      return refusePromise(work());
    } finally {
      comeBack(before);
    }
  } finally {
    before.close();
  }
}

let isPoolStarted = false;

/** libuv makes all threads of the pool at once, at the first work for it (uv__work_submit, src/threadpool.c), on the calling thread. */
function startPool(): void {
  if (isPoolStarted) return;
  isPoolStarted = true;
  access("/", () => {});
}

function comeBack(netns: Netns): void {
  const result = tryCall("setns", netns.fd.number, CLONE_NEWNET);
  if (result < 0) endAbroad(new KernelError("come back from another network namespace", -result));
}

/** Written by hand: no log reaches here, and nothing may run that could touch a link. */
function endAbroad({ message }: KernelError): void {
  const line = {
    level: "error",
    time: new Date(systemClock.now()).toISOString(),
    event: "namespace-not-left",
    error: message,
  };
  try {
    writeSync(STANDARD_ERROR, `${JSON.stringify({ ...line, exitCode: FAULT_EXIT_CODE })}\n`);
  } finally {
    exitNow(FAULT_EXIT_CODE);
  }
}

function refusePromise<T>(result: T): T {
  if (result instanceof Promise) throw new TypeError("Work inside a network namespace must be synchronous");
  return result;
}

function notANetns(name: string, what: string): NotANetnsError {
  return new NotANetnsError(`Cannot use ${name} as a network namespace: it is ${what}`);
}

function sysctlPath(name: string): string {
  if (!/^[a-z0-9_]+(\/[^/\0]+)+$/.test(name) || name.split("/").includes("..")) {
    throw new TypeError(`Cannot use "${name}" as the name of a sysctl`);
  }
  return `/proc/sys/${name}`;
}
