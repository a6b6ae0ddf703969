// BPF programs of type CGROUP_DEVICE: what bpf(2) needs and answers, laid out by include/uapi/linux/bpf.h (Linux 6.18).
import { BpfCommand, bpf } from "./bpf.ts";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { type BorrowedFd, Fd } from "./fd.ts";
import { addressOf, offHeap, tryCall } from "./native.ts";

const BPF_PROG_TYPE_CGROUP_DEVICE = 15;
const BPF_CGROUP_DEVICE = 6;
const BPF_F_QUERY_EFFECTIVE = 1;
/** BPF_CGROUP_MAX_PROGS, include/linux/bpf-cgroup-defs.h, times a depth that no effective list reaches. */
const QUERY_IDS = 64 * 16;
const INSTRUCTION_BYTES = 8;
const NAME_BYTES = 16;
const LOG_BYTES = 64 * 1024;
const LOAD_TRIES = 10;

/** BPF_F_ALLOW_OVERRIDE, BPF_F_ALLOW_MULTI, BPF_F_REPLACE. */
export const AttachFlag = { OVERRIDE: 1, MULTI: 2, REPLACE: 4 } as const;

// Parts of union bpf_attr, in bytes.
const loadAttr = { type: 0, count: 4, code: 8, licence: 16, logLevel: 24, logSize: 28, log: 32, name: 48, size: 72 };
const attachAttr = { target: 0, program: 4, type: 8, flags: 12, replace: 16, size: 20 };
const queryAttr = { target: 0, type: 4, queryFlags: 8, attachFlags: 12, ids: 16, count: 24, size: 32 };
const infoAttr = { fd: 0, length: 4, info: 8, size: 16 };
// struct bpf_prog_info
const info = { type: 0, id: 4, xlatedBytes: 20, xlated: 32, maps: 52, name: 64, size: 128 };

/** The programs attached to a cgroup itself, in the order they run, or all that are in force there, ancestors' included. */
interface AttachedPrograms {
  readonly ids: readonly number[];
  /** How those of the cgroup itself are attached: 0, OVERRIDE or MULTI. Says nothing when there is none, or of all in force. */
  readonly flags: number;
}

/** A loaded program as the kernel reports it. */
interface LoadedProgram {
  readonly id: number;
  /** As given by its maker, often "". */
  readonly name: string;
  /** As rewritten by the verifier, 8 bytes each; undefined where the kernel hides them (kptr_restrict, bpf_jit_harden). */
  readonly code: Buffer | undefined;
  readonly mapCount: number;
}

// One call at a time, on the main thread: the areas are used again.
const queryArea = offHeap(queryAttr.size);
const idArea = offHeap(QUERY_IDS * 4);

/** The device programs of a cgroup. @throws {KernelError} for example ENOENT or ENODEV when the cgroup is gone. */
export function deviceProgramsOf(cgroup: BorrowedFd, { inForce = false } = {}): AttachedPrograms {
  queryArea.fill(0);
  queryArea.writeUInt32LE(cgroup.number, queryAttr.target);
  queryArea.writeUInt32LE(BPF_CGROUP_DEVICE, queryAttr.type);
  queryArea.writeUInt32LE(inForce ? BPF_F_QUERY_EFFECTIVE : 0, queryAttr.queryFlags);
  queryArea.writeBigUInt64LE(addressOf(idArea), queryAttr.ids);
  queryArea.writeUInt32LE(QUERY_IDS, queryAttr.count);
  bpf("list the device programs of a cgroup", BpfCommand.PROG_QUERY, queryArea);
  const count = queryArea.readUInt32LE(queryAttr.count);
  const ids = Array.from({ length: count }, (_, i) => idArea.readUInt32LE(i * 4));
  return { ids, flags: queryArea.readUInt32LE(queryAttr.attachFlags) };
}

/** A descriptor of a loaded program, owned by the caller. @throws {KernelError} ENOENT when there is none of that number. */
export function openProgram(id: number): Fd {
  const attributes = offHeap(16);
  attributes.writeUInt32LE(id, 0);
  return Fd.own(bpf(`open BPF program ${id}`, BpfCommand.PROG_GET_FD_BY_ID, attributes));
}

/** What the kernel reports of a program. @throws {KernelError} */
export function readProgram(program: BorrowedFd): LoadedProgram {
  const area = offHeap(info.size);
  queryInfo(program, area);
  const bytes = area.readUInt32LE(info.xlatedBytes);
  const found = {
    id: area.readUInt32LE(info.id),
    name: textAt(area, info.name),
    mapCount: area.readUInt32LE(info.maps),
  };
  const code = offHeap(bytes);
  area.fill(0);
  area.writeUInt32LE(bytes, info.xlatedBytes);
  area.writeBigUInt64LE(addressOf(code), info.xlated);
  queryInfo(program, area);
  const isHidden = bytes === 0 || area.readBigUInt64LE(info.xlated) === 0n;
  return { ...found, code: isHidden ? undefined : code.subarray(0, bytes) };
}

function queryInfo(program: BorrowedFd, area: Buffer): void {
  const attributes = offHeap(infoAttr.size);
  attributes.writeUInt32LE(program.number, infoAttr.fd);
  attributes.writeUInt32LE(area.length, infoAttr.length);
  attributes.writeBigUInt64LE(addressOf(area), infoAttr.info);
  bpf("read a BPF program", BpfCommand.OBJ_GET_INFO_BY_FD, attributes);
}

/**
 * Loads a program; the descriptor is the caller's. `name` is cut to 15 letters, digits, `_` and `.`.
 * @throws {KernelError} with the verifier's last words as its detail when it refuses.
 */
export function loadDeviceProgram(code: Buffer, name: string): Fd {
  // Before Linux 5.11 programs count as locked memory, of which a process may have little (RLIMIT_MEMLOCK, 8).
  tryCall("setrlimit", 8, offHeap(16).fill(0xff, 0, 16));
  const instructions = offHeap(code.length);
  code.copy(instructions);
  const licence = offHeap(16);
  licence.write("Apache-2.0");
  const attributes = offHeap(loadAttr.size);
  attributes.writeUInt32LE(BPF_PROG_TYPE_CGROUP_DEVICE, loadAttr.type);
  attributes.writeUInt32LE(code.length / INSTRUCTION_BYTES, loadAttr.count);
  attributes.writeBigUInt64LE(addressOf(instructions), loadAttr.code);
  attributes.writeBigUInt64LE(addressOf(licence), loadAttr.licence);
  attributes.write(name.replace(/[^\w.]/g, "_").slice(0, NAME_BYTES - 1), loadAttr.name, "latin1");
  for (let tries = 1; ; tries++) {
    try {
      return Fd.own(bpf("load a device program", BpfCommand.PROG_LOAD, attributes));
    } catch (error) {
      // The verifier gives up when a signal arrives, as they do all the time under a profiler.
      const isInterrupted = error instanceof KernelError && error.errno === Errno.EAGAIN;
      if (!isInterrupted || tries === LOAD_TRIES) throw explained(error, attributes);
    }
  }
}

/** Loads the program again, with a place for the verifier's words: writing them takes time that a good program does not need. */
function explained(error: unknown, attributes: Buffer): unknown {
  if (!(error instanceof KernelError)) return error;
  const log = offHeap(LOG_BYTES);
  attributes.writeUInt32LE(1, loadAttr.logLevel);
  attributes.writeUInt32LE(log.length, loadAttr.logSize);
  attributes.writeBigUInt64LE(addressOf(log), loadAttr.log);
  try {
    Fd.own(bpf("load a device program", BpfCommand.PROG_LOAD, attributes)).close();
  } catch {
    // the words are in the log now
  }
  const words = textAt(log, 0).trimEnd().split("\n").slice(-3, -1).join("; ");
  if (words !== "") return new KernelError(error.op, error.errno, `the verifier says: ${words}`);
  return error.errno === Errno.EPERM ? new KernelError(error.op, error.errno, NOT_PERMITTED) : error;
}

/** The text at an offset, up to its NUL. */
function textAt(area: Buffer, offset: number): string {
  return area.toString("latin1", offset, area.indexOf(0, offset));
}

/** The kernel has one word for both. */
const NOT_PERMITTED =
  "the forwarder needs CAP_BPF or CAP_SYS_ADMIN; before Linux 5.11 also enough locked memory: " +
  "raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity of the container runtime) or give it CAP_SYS_RESOURCE";

/**
 * Attaches a program. With MULTI | REPLACE it takes the place of `replaced`, atomically. Without MULTI it takes the place of
 * the one program that is there, atomically too: the flags must be those of that one.
 * @throws {KernelError} ENOENT when `replaced` is not attached (any more), EPERM for flags that do not fit, E2BIG for a 65th.
 */
export function attachDeviceProgram(
  cgroup: BorrowedFd,
  program: BorrowedFd,
  { flags, replaced }: { readonly flags: number; readonly replaced?: BorrowedFd },
): void {
  const attributes = attachAttributes(cgroup, program);
  attributes.writeUInt32LE(flags, attachAttr.flags);
  if (replaced) attributes.writeUInt32LE(replaced.number, attachAttr.replace);
  bpf("attach a device program", BpfCommand.PROG_ATTACH, attributes);
}

/** Takes a program off a cgroup. @throws {KernelError} ENOENT when it is not attached there. */
export function detachDeviceProgram(cgroup: BorrowedFd, program: BorrowedFd): void {
  bpf("detach a device program", BpfCommand.PROG_DETACH, attachAttributes(cgroup, program));
}

function attachAttributes(cgroup: BorrowedFd, program: BorrowedFd): Buffer {
  const attributes = offHeap(attachAttr.size);
  attributes.writeUInt32LE(cgroup.number, attachAttr.target);
  attributes.writeUInt32LE(program.number, attachAttr.program);
  attributes.writeUInt32LE(BPF_CGROUP_DEVICE, attachAttr.type);
  return attributes;
}
