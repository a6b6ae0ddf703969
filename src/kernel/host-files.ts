import { constants } from "node:fs";
import { lstat, open, readdir, readFile, readlink, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { TextWrites, WriteLimit } from "./blocking-writes.ts";
import { deviceHolders } from "./device-holders.ts";
import { type DeviceNumber, deviceNumberOf } from "./device-node.ts";
import { codeOf, Errno } from "./errno.ts";
import { KernelError, kernelErrorOf } from "./error.ts";

/** How long one write may take by default. */
const WRITE_LIMIT_MS = 10_000;

/** Who has a device open that only one may open. */
export interface DeviceUse {
  /** "4711 (testpmd)"; empty when the holder is not among the processes that we see. */
  readonly processes: readonly string[];
}

/** Files of the host beneath one folder (sysfs, /dev/vfio). Paths are relative, and cannot leave it by their text. */
export interface HostFiles {
  /** The text without its final newline. @throws {KernelError} */
  readText(path: string): Promise<string>;
  /**
   * Writes to an existing file, in one write, as sysfs wants it. Never holds the main thread or Node's own threads.
   * @throws {KernelError} the kernel's errno; ETIMEDOUT after `limitMs` (10 s by default).
   */
  writeText(path: string, text: string, options?: Partial<WriteLimit>): Promise<void>;
  /** Names in a folder, sorted. @throws {KernelError} ENOENT when it is missing. */
  list(path: string): Promise<readonly string[]>;
  /** What a link says, unresolved. @throws {KernelError} EINVAL when it is no link. */
  readLink(path: string): Promise<string>;
  /** Whether something is there; a link counts by itself, whatever it leads to. */
  exists(path: string): Promise<boolean>;
  /**
   * Of the file or folder that the path leads to. One of sysfs that is made again under its name has another one, for as long as the
   * machine runs (idr_alloc_cyclic in __kernfs_new_node, fs/kernfs/dir.c). @throws {KernelError}
   */
  inode(path: string): Promise<bigint>;
  /** Numbers of a character device node. @throws {KernelError} ENODEV when it is something else. */
  deviceNumber(path: string): Promise<DeviceNumber>;
  /**
   * Who has open a character device that takes one at a time, such as a VFIO group: it is opened for a moment, and refused
   * with EBUSY. Undefined when no process has, or there is no such device. @throws {KernelError} another errno.
   */
  heldBy(path: string): Promise<DeviceUse | undefined>;
}

/** The files beneath a folder of this machine. The threads of `writes` may serve many folders. */
export function openHostFiles(root: string, writes: TextWrites): HostFiles {
  const at = (path: string) => join(root, checkedPath(path));
  return {
    readText: (path) => attempt(`read ${at(path)}`, async () => (await readFile(at(path), "utf8")).replace(/\n$/, "")),
    writeText: (path, text, options) => writes.write(at(path), text, { limitMs: WRITE_LIMIT_MS, ...options }),
    list: (path) => attempt(`list ${at(path)}`, async () => (await readdir(at(path))).sort()),
    readLink: (path) => attempt(`read link ${at(path)}`, () => readlink(at(path))),
    exists: (path) =>
      lstat(at(path)).then(
        () => true,
        () => false,
      ),
    inode: (path) => attempt(`read inode ${at(path)}`, async () => (await stat(at(path), { bigint: true })).ino),
    deviceNumber: (path) => attempt(`read device ${at(path)}`, () => readDeviceNumber(at(path))),
    heldBy: (path) => attempt(`open ${at(path)}`, () => readHolders(at(path))),
  };
}

/** @throws {TypeError} for a path that is absolute or climbs. */
export function checkedPath(path: string): string {
  const parts = path.split("/");
  if (path.startsWith("/") || path.includes("\0") || parts.includes("..")) {
    throw new TypeError(`Cannot use ${JSON.stringify(path)}: it leads out of its folder`);
  }
  return path;
}

/** Does what Node does with files. @throws {KernelError} where the kernel refuses it. */
export async function attempt<T>(op: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw kernelErrorOf(op, error);
  }
}

async function readDeviceNumber(path: string): Promise<DeviceNumber> {
  const node = await stat(path);
  if (!node.isCharacterDevice())
    throw new KernelError(`read device ${path}`, Errno.ENODEV, "it is no character device");
  return deviceNumberOf(BigInt(node.rdev));
}

const WITHOUT_HOLDER: readonly (string | undefined)[] = ["ENOENT", "ENODEV", "ENXIO"];

async function readHolders(path: string): Promise<DeviceUse | undefined> {
  try {
    const handle = await open(path, constants.O_RDWR | constants.O_NONBLOCK);
    await handle.close();
    return undefined;
  } catch (error) {
    const code = codeOf(error);
    if (WITHOUT_HOLDER.includes(code)) return undefined;
    if (code !== "EBUSY") throw error;
    const device = await readDeviceNumber(path).catch(() => undefined);
    return { processes: device ? await deviceHolders(basename(path), device) : [] };
  }
}
