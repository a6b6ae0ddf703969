import { messageOf } from "../async/index.ts";
import {
  AttachFlag,
  attachDeviceProgram,
  type BorrowedFd,
  type DeviceNumber,
  detachDeviceProgram,
  deviceProgramsOf,
  type Fd,
  KernelError,
  loadDeviceProgram,
  openProgram,
} from "../kernel/index.ts";
import { type AllowBlock, joinProgram, sortedDevices } from "./bpf/allow-block.ts";
import { encodeProgram, isSameProgram, type Program } from "./bpf/instruction.ts";
import { MAX_INSTRUCTIONS } from "./bpf/simple.ts";
import { AccessError } from "./error.ts";
import { type Filter, filterText, readFilter, readOpened, withProgram } from "./filter.ts";
import type { Cgroup } from "./rules.ts";

/** Others may change the filters between our read and our write; the kernel reports it, and we read again. */
const TRIES = 5;

/** The filters of one cgroup itself, in the order they run. */
export interface Filters {
  readonly list: readonly Filter[];
  /** How they are attached, AttachFlag. */
  readonly flags: number;
}

/** Which devices a filter shall let pass by our block; the same as it does now when nothing is to change. */
type DesiredDevices = (filter: Filter) => readonly DeviceNumber[];

/** @throws {KernelError} ENOENT when the cgroup has gone. */
export function readFilters({ folder }: Cgroup): Filters {
  const { ids, flags } = deviceProgramsOf(folder.fd);
  return { list: ids.flatMap((id) => readFilter(id) ?? []), flags };
}

/**
 * Brings our blocks in all filters of the cgroup to what is desired, all or none. Answers how many filters changed. All in one go, on
 * the main thread: a filter is loaded and replaced in some 50 µs.
 * @throws {AccessError} foreign-filter, not-taken, unsettled; {KernelError} ENOENT when the cgroup has gone.
 */
export function rewriteDevicePrograms(cgroup: Cgroup, desired: DesiredDevices): number {
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const filters = readFilters(cgroup);
    const steps = filters.list.flatMap(
      (filter) => stepFor(cgroup, filters, { filter, desired: desired(filter) }) ?? [],
    );
    if (steps.length === 0) return 0;
    if (takeSteps(cgroup, steps, filters.flags)) return steps.length;
  }
  throw new AccessError({ kind: "unsettled", cgroup: cgroup.path, tries: TRIES });
}

/** One filter that makes way. */
interface Step {
  readonly filter: Filter;
  /** What takes its place; undefined when it only goes. */
  readonly next: Program | undefined;
  /** The program that it was made from, if that is what takes its place. */
  readonly originalId: number | undefined;
}

function stepFor(
  cgroup: Cgroup,
  filters: Filters,
  { filter, desired }: { readonly filter: Filter; readonly desired: readonly DeviceNumber[] },
): Step | undefined {
  const successor = successorOf(filter, filters);
  if (successor) return { filter, next: undefined, originalId: undefined };
  const block: AllowBlock = { devices: sortedDevices(desired), originalId: filter.block?.originalId ?? filter.id };
  const next = joinProgram(block, filter.rest);
  if (isSameProgram(next, filter.program)) return undefined;
  if (filter.problem !== undefined) throw refused(cgroup, filter, filter.problem);
  if (next.length > MAX_INSTRUCTIONS) throw refused(cgroup, filter, `it would have ${next.length} instructions`);
  return { filter, next, originalId: block.devices.length === 0 ? block.originalId : undefined };
}

/**
 * The same filter, installed again beside ours: systemd does so at daemon-reload, and cannot find its former one to take it
 * off. All filters of a cgroup must agree, so the older of two equal ones says nothing more.
 */
function successorOf({ block, rest }: Filter, { list, flags }: Filters): Filter | undefined {
  if (block === undefined || flags !== AttachFlag.MULTI) return undefined;
  return list.find((other) => other.block === undefined && isSameProgram(other.program, rest));
}

/** False when another program was faster: nothing is changed then. */
function takeSteps(cgroup: Cgroup, steps: readonly Step[], flags: number): boolean {
  const done: { before: Fd; now: Fd | undefined }[] = [];
  try {
    // Those that only go come last: until then their successor may not let the devices pass.
    for (const step of [...steps].sort((a, b) => Number(a.next === undefined) - Number(b.next === undefined))) {
      const taken = takeStep(cgroup, step, flags);
      if (taken === undefined) {
        goBack(cgroup, done, flags);
        return false;
      }
      done.push(taken);
    }
    return true;
  } catch (error) {
    goBack(cgroup, done, flags);
    throw error;
  } finally {
    for (const { before, now } of done) {
      before.close();
      now?.close();
    }
  }
}

function takeStep(cgroup: Cgroup, step: Step, flags: number): { before: Fd; now: Fd | undefined } | undefined {
  let before: Fd | undefined;
  let now: Fd | undefined;
  try {
    before = openProgram(step.filter.id);
    now = step.next && programFor(step, step.next);
    if (now) replace(cgroup, { before, now, flags });
    else detachDeviceProgram(cgroup.folder.fd, before);
    return { before, now };
  } catch (error) {
    before?.close();
    now?.close();
    if (!(error instanceof KernelError)) throw error;
    if (error.code !== "ENOENT") throw notTaken(cgroup, error);
    // The filter is no longer attached, or not alive: another program has put one in its place.
    if (!deviceProgramsOf(cgroup.folder.fd).ids.includes(step.filter.id)) return undefined;
    throw refused(cgroup, step.filter, "it is attached by a BPF link, and only who has the link can replace it");
  }
}

/** The very program from before us where it still lives: its maker (systemd) may want to find it there. */
function programFor({ filter, originalId }: Step, next: Program): Fd {
  const dupIfSame = (program: Fd) => (isSameProgram(readOpened(program).program, next) ? program.dup() : undefined);
  const original = originalId === undefined ? undefined : withProgram(originalId, dupIfSame);
  return original ?? loadDeviceProgram(encodeProgram(next), filter.name);
}

function replace(
  { folder }: Cgroup,
  { before, now, flags }: { readonly before: BorrowedFd; readonly now: BorrowedFd; readonly flags: number },
): void {
  // Without MULTI there is one program, and the kernel puts ours in its place. It cannot be known in whose: reading back shows it.
  if (flags === AttachFlag.MULTI) {
    attachDeviceProgram(folder.fd, now, { flags: AttachFlag.MULTI | AttachFlag.REPLACE, replaced: before });
  } else {
    attachDeviceProgram(folder.fd, now, { flags });
  }
}

function goBack(cgroup: Cgroup, done: readonly { before: Fd; now: Fd | undefined }[], flags: number): void {
  for (const { before, now } of done.toReversed()) {
    try {
      if (now) replace(cgroup, { before: now, now: before, flags });
      else attachDeviceProgram(cgroup.folder.fd, before, { flags });
    } catch (error) {
      // Another program has taken it off meanwhile, or the cgroup has gone: there is nothing of ours any more.
      if (!(error instanceof KernelError && error.code === "ENOENT")) throw notTaken(cgroup, error);
    }
  }
}

function refused({ path }: Cgroup, filter: Filter, problem: string): AccessError {
  return new AccessError({ kind: "foreign-filter", cgroup: path, program: filterText(filter), problem });
}

function notTaken({ path }: Cgroup, error: unknown): AccessError {
  const hint = error instanceof KernelError ? hints[error.code] : undefined;
  const problem = hint === undefined ? messageOf(error) : `${messageOf(error)}; ${hint}`;
  return new AccessError({ kind: "not-taken", cgroup: path, device: "devices", problem }, { cause: error });
}

const hints: Readonly<Record<string, string>> = {
  EPERM: "the forwarder needs CAP_SYS_ADMIN",
  E2BIG: "the kernel takes 64 filters for each cgroup, and changes none when there are so many",
  EINVAL: "want Linux 5.6 or newer, which can replace a filter",
};
