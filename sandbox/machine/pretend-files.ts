import { type Clock, startDeadline } from "../../src/async/index.ts";
import { type DeviceUse, Errno, type HostFiles, KernelError, type WriteLimit } from "../../src/kernel/index.ts";

/** One entry of a pretend file tree, made again at each look. */
export type Entry =
  | {
      readonly kind: "folder";
      /** Unlike that of any other that ever was there, as sysfs has it. */
      readonly inode?: bigint;
      readonly names: () => readonly string[] | Promise<readonly string[]>;
      readonly child: (name: string) => Entry | undefined | Promise<Entry | undefined>;
    }
  | { readonly kind: "file"; readonly read?: () => string; readonly write?: (text: string) => Promise<void> | void }
  | { readonly kind: "link"; readonly target: string; readonly to: () => Entry | undefined }
  | {
      readonly kind: "device";
      readonly major: number;
      readonly minor: number;
      readonly heldBy?: () => Promise<DeviceUse | undefined>;
    };

/** A folder with fixed names; an entry that is undefined is not there. */
export function folderOf(entries: Readonly<Record<string, Entry | undefined>>): Entry {
  return {
    kind: "folder",
    names: () => Object.keys(entries).filter((name) => entries[name] !== undefined),
    child: (name) => (Object.hasOwn(entries, name) ? entries[name] : undefined),
  };
}

/** A file that can only be read. */
export function textOf(text: string | number): Entry {
  return { kind: "file", read: () => String(text) };
}

/** What stands between a write and the machine. */
export interface WriteGuard {
  readonly clock: Clock;
  /** Every limit counts so many times. */
  readonly slowness: number;
  readonly before: (path: string, text: string) => Promise<void>;
}

/** A file tree that exists only as functions, with the errors and the write deadline of real host files. */
export function pretendFiles(root: Entry, guard: WriteGuard): HostFiles {
  const find = (path: string, follow: boolean) => findEntry(root, path, follow);
  return {
    async readText(path) {
      const entry = await find(path, true);
      if (entry.kind !== "file" || !entry.read) throw refuse("read", path, "EACCES");
      return entry.read();
    },
    async writeText(path, text, options = {}) {
      const entry = await find(path, true);
      const write = entry.kind === "file" ? entry.write : undefined;
      if (!write) throw refuse("write", path, "EACCES");
      const work = guard.before(path, text).then(() => write(text));
      const limitMs = guard.slowness * (options.limitMs ?? 10_000);
      await withLimit(work, { ...options, path, clock: guard.clock, limitMs });
    },
    async list(path) {
      const entry = await find(path, true);
      if (entry.kind !== "folder") throw refuse("list", path, "ENOTDIR");
      return [...(await entry.names())].sort();
    },
    async readLink(path) {
      const entry = await find(path, false);
      if (entry.kind !== "link") throw refuse("read the link", path, "EINVAL");
      return entry.target;
    },
    async exists(path) {
      try {
        await find(path, true);
        return true;
      } catch (error) {
        if (error instanceof KernelError && ["ENOENT", "ENOTDIR"].includes(error.code)) return false;
        throw error;
      }
    },
    async inode(path) {
      const entry = await find(path, true);
      if (entry.kind !== "folder" || entry.inode === undefined) throw refuse("read the inode of", path, "EACCES");
      return entry.inode;
    },
    async deviceNumber(path) {
      const entry = await find(path, true);
      if (entry.kind !== "device") throw refuse("read the device number of", path, "ENODEV");
      return { major: entry.major, minor: entry.minor };
    },
    async heldBy(path) {
      const entry = await find(path, true).catch(() => undefined);
      return entry?.kind === "device" ? entry.heldBy?.() : undefined;
    },
  };
}

async function findEntry(root: Entry, path: string, followLast: boolean): Promise<Entry> {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  if (path === "" || path.startsWith("/") || names.includes("..")) {
    throw new TypeError(`Cannot use "${path}" as a path beneath a folder: want a relative one without ".."`);
  }
  let entry = root;
  for (const [index, name] of names.entries()) {
    if (entry.kind !== "folder") throw refuse("open", path, "ENOTDIR");
    const child = await entry.child(name);
    const follow = followLast || index < names.length - 1;
    const next = child?.kind === "link" && follow ? child.to() : child;
    if (!next) throw refuse("open", path, "ENOENT");
    entry = next;
  }
  return entry;
}

/** Ends the wait when the time is up; the write itself continues in the background, as one that hangs in the kernel does. */
async function withLimit(
  work: Promise<void>,
  { path, clock, limitMs, onLateReturn }: WriteLimit & { readonly path: string; readonly clock: Clock },
): Promise<void> {
  const deadline = startDeadline(clock, limitMs, { what: `write to ${path}` });
  const timeUp = Promise.withResolvers<never>();
  deadline.signal.addEventListener("abort", () => timeUp.reject(refuse("write", path, "ETIMEDOUT")), { once: true });
  try {
    await Promise.race([work, timeUp.promise]);
  } finally {
    const isLate = deadline.signal.aborted;
    const returned = () => isLate && onLateReturn?.();
    work.then(returned, returned);
    deadline.end();
  }
}

function refuse(op: string, path: string, code: keyof typeof Errno): KernelError {
  return new KernelError(`${op} ${path}`, Errno[code]);
}
