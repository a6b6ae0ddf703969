// Locks that the kernel frees when their holder ends, however it ends: flock(2) on an open file. Nothing is left to clean up.
import { lstatSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { guarded } from "../async/index.ts";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { Fd, fileKey } from "./fd.ts";
import { call, openPoll, POLL_READABLE, tryCall } from "./native.ts";

/** Held until it is released, or the process ends. */
export interface ExclusiveLock {
  /** Whether what was locked is still what has that name: a device that has come back is another one. */
  isCurrent(): boolean;
  /** A second time does nothing. */
  release(): void;
}

export interface FolderLockOptions {
  /** Another process holds it, and is waited for. Called once for each holder that is met. */
  onHeld(): void;
  /** Gives the waiting up. */
  readonly signal: AbortSignal;
}

/** Of a FIFO: see `lockFolder`. */
const LOCK_FILE = "lock";

// include/uapi/asm-generic/fcntl.h and include/uapi/linux/stat.h.
const O_RDONLY = 0;
const O_RDWR = 0o2;
const O_NONBLOCK = 0o4000;
const O_DIRECTORY = 0o200000;
const O_CLOEXEC = 0o2000000;
const S_IFIFO = 0o010000;
const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * Locks a folder for this process, and waits for it as long as another process has it. The lock is on a FIFO in the folder, which its
 * holder has open for writing: the end of a FIFO's last writer is an event for who has it open for reading (POLLHUP), and the
 * kernel removes a file's locks before it counts the writer out (fs/file_table.c, __fput: locks_remove_file, then the pipe's
 * release). So nothing is polled, and a process that is woken finds the lock free.
 * @throws {KernelError} or the file system's error; the signal's reason.
 */
export async function lockFolder(folder: string, { onHeld, signal }: FolderLockOptions): Promise<ExclusiveLock> {
  const path = join(folder, LOCK_FILE);
  for (;;) {
    signal.throwIfAborted();
    makeFifo(folder, path);
    // Opened before the lock is tried: a process that has it then is a writer whose end is seen here.
    const end = open(path, O_RDONLY | O_NONBLOCK);
    try {
      const lock = tryLock(path, O_RDWR | O_NONBLOCK);
      if (lock?.isCurrent()) return lock;
      if (lock) {
        lock.release(); // the folder was made again in between
        continue;
      }
      onHeld();
      await noWriterLeft(end, signal);
    } finally {
      end.close();
    }
  }
}

/**
 * Locks what is at a path, a folder of sysfs for example, without changing or making anything there.
 * @returns undefined while another process has it locked.
 * @throws {KernelError} for example ENOENT.
 */
export function tryLockFolder(path: string): ExclusiveLock | undefined {
  return tryLock(path, O_RDONLY | O_DIRECTORY);
}

function tryLock(path: string, flags: number): ExclusiveLock | undefined {
  const fd = open(path, flags);
  const failed = tryCall("flock", fd.number, LOCK_EX | LOCK_NB);
  if (failed === 0) return { isCurrent: () => !fd.isClosed && isAt(fd, path), release: () => fd.close() };
  fd.close();
  if (failed === -Errno.EAGAIN) return undefined;
  throw new KernelError(`lock ${path}`, -failed);
}

function open(path: string, flags: number): Fd {
  return Fd.own(call(`open ${path}`, "open", path, flags | O_CLOEXEC, 0));
}

function isAt(fd: Fd, path: string): boolean {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false });
  return found !== undefined && fileKey(fd.id()) === fileKey(found);
}

function makeFifo(folder: string, path: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.isFIFO()) return;
  if (found) throw new Error(`Cannot lock ${folder}: ${path} is in the way and no FIFO; remove it`);
  const failed = tryCall("mknod", path, S_IFIFO | 0o600, 0);
  if (failed < 0 && failed !== -Errno.EEXIST) throw new KernelError(`make the FIFO ${path}`, -failed);
}

/** Resolves at the end of the last writer, at once where none is left. @throws the signal's reason. */
async function noWriterLeft(fifo: Fd, signal: AbortSignal): Promise<void> {
  const left = Promise.withResolvers<void>();
  const poll = openPoll(
    fifo.number,
    guarded("poll", () => left.resolve()),
  );
  const giveUp = guarded("abort", () => left.reject(signal.reason));
  signal.addEventListener("abort", giveUp, { once: true });
  try {
    poll.watch(POLL_READABLE);
    await left.promise;
  } finally {
    signal.removeEventListener("abort", giveUp);
    poll.close();
  }
}
