import { constants, existsSync, readdirSync, readFileSync, statfsSync, watch } from "node:fs";
import { guarded } from "../async/index.ts";
import type { TextWrites } from "./blocking-writes.ts";
import { codeOf, Errno } from "./errno.ts";
import { KernelError, kernelErrorOf } from "./error.ts";
import { Fd, fileKey } from "./fd.ts";
import { checkedPath } from "./host-files.ts";
import { call } from "./native.ts";

/** CGROUP_SUPER_MAGIC and CGROUP2_SUPER_MAGIC, include/uapi/linux/magic.h. */
const CGROUP_MAGIC = 0x27e0eb;
const CGROUP2_MAGIC = 0x63677270;

const O_CLOEXEC = 0o2000000;
const O_FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW | O_CLOEXEC;
/** Every cgroup of both versions has it. */
const PROCESSES = "cgroup.procs";
const AT_FDCWD = -100;
/** The kernel answers a write to a cgroup file at once, or after another one of the same kind. */
const WRITE_LIMIT_MS = 5_000;

/** Which version of cgroups the folder belongs to; undefined when it is missing or no cgroup. */
export function cgroupVersionOf(path: string): 1 | 2 | undefined {
  try {
    const { type } = statfsSync(path);
    return type === CGROUP_MAGIC ? 1 : type === CGROUP2_MAGIC ? 2 : undefined;
  } catch {
    return undefined;
  }
}

/**
 * A cgroup by descriptor: always the same one, whatever is made under its name later. Owned; close it. Reading is done at
 * once: the kernel makes these texts and lists from its memory in some 10 µs, a tenth of what a thread for it would cost.
 */
export class CgroupFolder {
  readonly fd: Fd;
  readonly #writes: TextWrites;

  private constructor(fd: Fd, writes: TextWrites) {
    this.fd = fd;
    this.#writes = writes;
  }

  /** The folder at a path of this machine; links on the way are followed. @throws {KernelError} */
  static open(path: string, writes: TextWrites): CgroupFolder {
    const fd = Fd.own(call(`open cgroup ${path}`, "openat", AT_FDCWD, `${path}/.`, O_FOLDER, 0));
    return new CgroupFolder(fd, writes);
  }

  /**
   * A cgroup beneath this one, by a path of plain names. No link is followed on the way.
   * @throws {KernelError} ENOENT; ELOOP or ENOTDIR for what is no folder. {TypeError} for a path that climbs.
   */
  beneath(path: string): CgroupFolder {
    const names = checkedPath(path).split("/");
    let at = this.fd.dup();
    for (const name of names) {
      const above = at;
      try {
        at = Fd.own(call(`open cgroup ${path}`, "openat", above.number, name, O_FOLDER, 0));
      } finally {
        above.close();
      }
    }
    return new CgroupFolder(at, this.#writes);
  }

  /** Distinguishes this cgroup from every other one of its hierarchy. */
  get identity(): string {
    return fileKey(this.fd.id());
  }

  /** Names of the cgroups directly beneath, sorted. @throws {KernelError} ENOENT or ENODEV when this one is gone. */
  children(): readonly string[] {
    // A folder that was removed lists as an empty one.
    if (!this.has(PROCESSES)) throw new KernelError("list a cgroup", Errno.ENOENT);
    const entries = attempt("list a cgroup", () => readdirSync(this.#path(), { withFileTypes: true }));
    return entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort();
  }

  /** Whether it has a file of that name. */
  has(name: string): boolean {
    return existsSync(this.#path(name));
  }

  /** The text of one of its files. @throws {KernelError} ENODEV when the cgroup is gone. */
  readText(name: string): string {
    return attempt(`read ${name} of a cgroup`, () => readFileSync(this.#path(name), "utf8"));
  }

  /** Writes to one of its files in one write. @throws {KernelError} */
  writeText(name: string, text: string): Promise<void> {
    return this.#writes.write(this.#path(name), text, { limitMs: WRITE_LIMIT_MS });
  }

  /**
   * Calls back after a cgroup was made or removed directly beneath, or one of its files was written to. Returns how to
   * stop. Events can be lost, and there are none for BPF programs: a caller that must not miss a change also scans from time to time.
   * `onBlind` is called with the errno's name when the kernel has no watch left for it.
   */
  onChange(listener: () => void, onBlind?: (code: string) => void): () => void {
    try {
      const watcher = watch(this.#path(), { persistent: false }, guarded("file-watch", listener));
      watcher.on(
        "error",
        guarded("file-watch", () => watcher.close()),
      );
      return () => watcher.close();
    } catch (error) {
      const code = codeOf(error);
      if (code === "ENOSPC" || code === "EMFILE") onBlind?.(code);
      return () => {}; // otherwise it is gone
    }
  }

  close(): void {
    this.fd.close();
  }

  /** By way of the descriptor. */
  #path(name = ""): string {
    return `/proc/self/fd/${this.fd.number}/${name}`;
  }
}

function attempt<T>(op: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw kernelErrorOf(op, error);
  }
}
