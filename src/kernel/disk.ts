import { constants } from "node:fs";
import { chmod, type FileHandle, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { codeOf } from "./errno.ts";

/** One open file. Every call throws the file system's error, for example ENOSPC or EIO. */
export interface DiskFile {
  /** The bytes from `position` on; fewer than `length` only at the end. */
  read(position: number, length: number): Promise<Buffer>;
  /** Writes all bytes at the end. After a failure some of them may be there. */
  write(bytes: Uint8Array): Promise<void>;
  truncate(size: number): Promise<void>;
  /** Resolves when what was written outlives a power cut: fdatasync(2). */
  datasync(): Promise<void>;
  /** The same, with the file's own data: fsync(2). */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** What a path names. */
export interface FileFacts {
  /** Device and inode. Another file under the same name has another one, for certain only while the first is open. */
  readonly id: string;
  readonly size: number;
}

/**
 * The file system as far as something must outlive us there. What was written is on the disk only after `datasync` or `sync` of
 * the file, a name only after `syncFolder`: fsync(2).
 */
export interface Disk {
  /** `append`: a file that is there. `create`: one that is not, mode 0600. */
  open(path: string, how: "read" | "append" | "create"): Promise<DiskFile>;
  /** Undefined when there is nothing. */
  stat(path: string): Promise<FileFacts | undefined>;
  rename(from: string, to: string): Promise<void>;
  /** Nothing to do when it is not there. */
  unlink(path: string): Promise<void>;
  syncFolder(path: string): Promise<void>;
  /** Makes the folder and those above it, mode 0700; nothing to do when it is there. */
  makeFolder(path: string): Promise<void>;
  /** Mode 0700. */
  restrict(path: string): Promise<void>;
}

// Node's "a" would make a file that is not there: what was in it would be lost without a word.
const FLAGS = {
  read: constants.O_RDONLY,
  append: constants.O_WRONLY | constants.O_APPEND,
  create: constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL,
};

/** The machine's own file system. */
export const linuxDisk: Disk = {
  async open(path, how) {
    return new LinuxFile(await open(path, FLAGS[how], 0o600));
  },
  async stat(path) {
    try {
      const { dev, ino, size } = await stat(path, { bigint: true });
      return { id: `${dev}:${ino}`, size: Number(size) };
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined;
      throw error;
    }
  },
  rename: (from, to) => rename(from, to),
  unlink: (path) => rm(path, { force: true }),
  async syncFolder(path) {
    const handle = await open(path, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
  async makeFolder(path) {
    await mkdir(path, { recursive: true, mode: 0o700 });
  },
  restrict: (path) => chmod(path, 0o700),
};

class LinuxFile implements DiskFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async read(position: number, length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(length);
    let filled = 0;
    while (filled < length) {
      const { bytesRead } = await this.#handle.read(bytes, filled, length - filled, position + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return bytes.subarray(0, filled);
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let left = bytes; left.length > 0; ) {
      const { bytesWritten } = await this.#handle.write(left);
      left = left.subarray(bytesWritten);
    }
  }

  truncate = (size: number) => this.#handle.truncate(size);
  datasync = () => this.#handle.datasync();
  sync = () => this.#handle.sync();
  close = () => this.#handle.close();
}
