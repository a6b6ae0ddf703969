// A disk that keeps what was not synced in memory only, so that a power cut loses it, or a part of it, in any order: what
// fsync(2) leaves open. A process that is killed loses nothing that the kernel has taken; a machine that stops does.
import { dirname } from "node:path";
import type { Disk, DiskFile, FileFacts } from "../../src/kernel/index.ts";

interface Inode {
  readonly id: string;
  now: Buffer;
  durable: Buffer;
}

/** One change that no sync has covered yet. */
type Pending =
  | { readonly kind: "data"; readonly inode: Inode; readonly at: number; readonly bytes: Buffer }
  | { readonly kind: "size"; readonly inode: Inode; readonly size: number }
  | { readonly kind: "name"; readonly path: string; readonly inode: Inode | undefined };

/** Which of the pending changes reach the disk, by their number; of data perhaps only the first bytes. */
export type Fate = (index: number, count: number) => boolean | "torn";

/** What is left of unsynced changes: nothing, everything, the last one alone, the first one alone, the half of each. */
export const FATES = {
  lost: () => false,
  kept: () => true,
  "kept but for the first": (index) => index > 0,
  "kept but for the last": (index, count) => index < count - 1,
  "the last alone": (index, count) => index === count - 1,
  torn: () => "torn",
  "torn at the end": (index, count) => (index === count - 1 ? "torn" : true),
} satisfies Readonly<Record<string, Fate>>;

/** A disk without a root: any folder can be made. */
export class UnsyncedDisk implements Disk {
  /**
   * Before each call that changes or syncs something, with the bytes that a write is given; throws in its place, or says how many bytes
   * are written before it fails.
   */
  onCall: (call: string, path: string, bytes: number) => { readonly bytes: number; readonly error: Error } | undefined =
    () => undefined;
  readonly #names = new Map<string, Inode>();
  readonly #durableNames = new Map<string, Inode>();
  readonly #folders = new Set<string>();
  #pending: Pending[] = [];
  #ids = 0;

  /** The disk after a power cut. */
  afterPowerCut(fate: Fate): UnsyncedDisk {
    const next = new UnsyncedDisk();
    const copies = new Map<Inode, Inode>();
    const copyOf = (inode: Inode) => {
      const known = copies.get(inode) ?? {
        id: next.#nextId(),
        now: Buffer.from(inode.durable),
        durable: inode.durable,
      };
      copies.set(inode, known);
      return known;
    };
    for (const folder of this.#folders) next.#folders.add(folder);
    for (const [path, inode] of this.#durableNames) next.#names.set(path, copyOf(inode));
    for (const [index, change] of this.#pending.entries()) {
      const outcome = fate(index, this.#pending.length);
      if (outcome === false) continue;
      if (change.kind === "name") {
        if (change.inode) next.#names.set(change.path, copyOf(change.inode));
        else next.#names.delete(change.path);
      } else {
        const kept = outcome === "torn" && change.kind === "data" ? half(change) : change;
        copyOf(change.inode).now = changed(copyOf(change.inode).now, kept);
      }
    }
    for (const [path, inode] of next.#names) {
      inode.durable = inode.now;
      next.#durableNames.set(path, inode);
    }
    return next;
  }

  /** An operator removes the folder with all that is in it. */
  removeFolder(path: string): void {
    this.#folders.delete(path);
    this.emptyFolder(path);
  }

  /** An operator removes all that is in the folder. */
  emptyFolder(path: string): void {
    for (const name of [...this.#names.keys()]) {
      if (dirname(name) === path) {
        this.#names.delete(name);
        this.#durableNames.delete(name);
      }
    }
  }

  /** The files, by their paths. */
  get files(): Readonly<Record<string, string>> {
    return Object.fromEntries([...this.#names].map(([path, { now }]) => [path, String(now)]));
  }

  async open(path: string, how: "read" | "append" | "create"): Promise<DiskFile> {
    if (how === "create") {
      this.#before("create", path);
      if (!this.#folders.has(dirname(path))) throw failure("ENOENT", path);
      const inode = { id: this.#nextId(), now: Buffer.alloc(0), durable: Buffer.alloc(0) };
      this.#names.set(path, inode);
      this.#pending.push({ kind: "name", path, inode });
    }
    const inode = this.#names.get(path);
    if (!inode) throw failure("ENOENT", path);
    return this.#opened(path, inode);
  }

  async stat(path: string): Promise<FileFacts | undefined> {
    const inode = this.#names.get(path);
    if (inode) return { id: inode.id, size: inode.now.length };
    return this.#folders.has(path) ? { id: path, size: 0 } : undefined;
  }

  async rename(from: string, to: string): Promise<void> {
    this.#before("rename", to);
    const inode = this.#names.get(from);
    if (!inode) throw failure("ENOENT", from);
    this.#names.delete(from);
    this.#names.set(to, inode);
    // One change of the folder, of which a power cut leaves all or nothing: rename(2).
    this.#pending.push({ kind: "name", path: to, inode }, { kind: "name", path: from, inode: undefined });
  }

  async unlink(path: string): Promise<void> {
    if (this.#names.delete(path)) this.#pending.push({ kind: "name", path, inode: undefined });
  }

  async syncFolder(path: string): Promise<void> {
    this.#before("sync folder", path);
    const isCovered = (change: Pending) => change.kind === "name" && dirname(change.path) === path;
    for (const change of this.#pending) {
      if (change.kind !== "name" || !isCovered(change)) continue;
      if (change.inode) this.#durableNames.set(change.path, change.inode);
      else this.#durableNames.delete(change.path);
    }
    this.#pending = this.#pending.filter((change) => !isCovered(change));
  }

  async makeFolder(path: string): Promise<void> {
    this.#before("make folder", path);
    this.#folders.add(path);
  }

  async restrict(): Promise<void> {}

  #opened(path: string, inode: Inode): DiskFile {
    const change = (pending: Pending & { readonly inode: Inode }) => {
      inode.now = changed(inode.now, pending);
      this.#pending.push(pending);
    };
    const sync = () => {
      inode.durable = inode.now;
      this.#pending = this.#pending.filter((one) => one.kind === "name" || one.inode !== inode);
    };
    return {
      read: async (position, length) => Buffer.from(inode.now.subarray(position, position + length)),
      write: async (bytes) => {
        const fault = this.onCall("write", path, bytes.length);
        const taken = Buffer.from(fault ? bytes.subarray(0, fault.bytes) : bytes);
        change({ kind: "data", inode, at: inode.now.length, bytes: taken });
        if (fault) throw fault.error;
      },
      truncate: async (size) => change({ kind: "size", inode, size }),
      datasync: async () => {
        this.#before("datasync", path);
        sync();
      },
      sync: async () => {
        this.#before("sync", path);
        sync();
      },
      close: async () => {},
    };
  }

  #nextId(): string {
    this.#ids += 1;
    return String(this.#ids);
  }

  #before(call: string, path: string): void {
    const fault = this.onCall(call, path, 0);
    if (fault) throw fault.error;
  }
}

function changed(content: Buffer, change: Pending): Buffer {
  if (change.kind === "size") return content.subarray(0, change.size);
  if (change.kind === "name") return content;
  // Data that is there without what was before it: the file is long enough, and zeros fill it.
  const longer = Buffer.alloc(Math.max(content.length, change.at + change.bytes.length));
  content.copy(longer);
  change.bytes.copy(longer, change.at);
  return longer;
}

function half<C extends { readonly bytes: Buffer }>(change: C): C {
  return { ...change, bytes: change.bytes.subarray(0, change.bytes.length >> 1) };
}

function failure(code: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
