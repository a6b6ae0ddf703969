import { type BorrowedFd, type DeviceNumber, type Fd, KernelError, openProgram, readProgram } from "../kernel/index.ts";
import { type AllowBlock, splitProgram } from "./bpf/allow-block.ts";
import { allows, OPEN_READ_WRITE } from "./bpf/evaluate.ts";
import { decodeProgram, type Program } from "./bpf/instruction.ts";
import { problemOf } from "./bpf/simple.ts";
import { unblind } from "./bpf/unblind.ts";
import { withoutDevices } from "./rules.ts";

/** A device program as it is loaded. */
export interface Filter {
  readonly id: number;
  /** "" for those of runc and crun, sd_devices for systemd's. */
  readonly name: string;
  /** With its constants as its maker wrote them. */
  readonly program: Program;
  /** What is ours of it. */
  readonly block: AllowBlock | undefined;
  /** What was there before us. */
  readonly rest: Program;
  /** Why it can neither be understood nor loaded again; its instructions may be missing then. */
  readonly problem: string | undefined;
}

/** Reads a filter; undefined when the kernel has no program of that number any more. @throws {KernelError} for example EPERM. */
export function readFilter(id: number): Filter | undefined {
  return withProgram(id, readOpened);
}

/** Reads the filter behind a descriptor. @throws {KernelError} */
export function readOpened(program: BorrowedFd): Filter {
  const { id, name, code, mapCount } = readProgram(program);
  if (code === undefined) return { id, name, program: [], block: undefined, rest: [], problem: HIDDEN };
  const whole = unblind(decodeProgram(code));
  const problem = mapCount > 0 ? `it uses ${mapCount} maps` : problemOf(whole);
  return { id, name, program: whole, ...splitProgram(whole), problem };
}

const HIDDEN =
  "the kernel hides its instructions; the forwarder needs CAP_SYSLOG, and the sysctls kernel.kptr_restrict and net.core.bpf_jit_harden below 2";

/** Does something with a loaded program; undefined when there is none of that number. */
export function withProgram<T>(id: number, act: (program: Fd) => T): T | undefined {
  let program: Fd;
  try {
    program = openProgram(id);
  } catch (error) {
    if (error instanceof KernelError && error.code === "ENOENT") return undefined;
    throw error;
  }
  try {
    return act(program);
  } finally {
    program.close();
  }
}

/** Whether the program lets the device be opened for reading and writing. */
export function letsOpen(program: Program, device: DeviceNumber): boolean {
  return allows(program, { ...device, access: OPEN_READ_WRITE });
}

/** Whether our part of the filter is for one of the devices. One that cannot be read cannot be proven to hold nothing of ours. */
export function mayHold(
  { program, block }: Pick<Filter, "program" | "block">,
  devices: readonly DeviceNumber[],
): boolean {
  if (program.length === 0) return true;
  const has = block?.devices ?? [];
  return withoutDevices(has, devices).length < has.length;
}

/** For the operator: `filter 17 (sd_devices)`. */
export function filterText({ id, name }: Pick<Filter, "id" | "name">): string {
  return name === "" ? `filter ${id}` : `filter ${id} (${name})`;
}
