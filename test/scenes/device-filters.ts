// Device filters as runtimes make them, on cgroups of tests.
import { encodeProgram, type Instruction, instruction, Op, type Program } from "../../src/access/bpf/instruction.ts";
import {
  AttachFlag,
  attachDeviceProgram,
  BlockingWrites,
  bpf,
  CgroupFolder,
  type DeviceNumber,
  detachDeviceProgram,
  deviceProgramsOf,
  Fd,
  loadDeviceProgram,
  offHeap,
  openProgram,
  readProgram,
} from "../../src/kernel/index.ts";

const JUMP_NOT_EQUAL = 0x55;
/** What every filter ends with: no. */
const no = [instruction(Op.MOV64, { dst: 0, imm: 0 }), instruction(Op.EXIT)];

/**
 * A filter like those of runc and crun: type, access, major and minor into R2 to R5, then rule after rule, and no at the end.
 * The devices are character devices and may be opened for anything.
 */
export function runtimeFilter(allowed: readonly DeviceNumber[]): Program {
  const context = { src: 1 };
  const head: Instruction[] = [
    instruction(Op.LOAD_WORD, { ...context, dst: 2 }),
    instruction(Op.AND32, { dst: 2, imm: 0xffff }),
    instruction(Op.LOAD_WORD, { ...context, dst: 3 }),
    instruction(Op.SHIFT_RIGHT32, { dst: 3, imm: 16 }),
    instruction(Op.LOAD_WORD, { ...context, dst: 4, offset: 4 }),
    instruction(Op.LOAD_WORD, { ...context, dst: 5, offset: 8 }),
  ];
  const rules = allowed.flatMap(({ major, minor }) => [
    instruction(JUMP_NOT_EQUAL, { dst: 2, imm: 2, offset: 4 }),
    instruction(JUMP_NOT_EQUAL, { dst: 4, imm: major, offset: 3 }),
    instruction(JUMP_NOT_EQUAL, { dst: 5, imm: minor, offset: 2 }),
    instruction(Op.MOV64, { dst: 0, imm: 1 }),
    instruction(Op.EXIT),
  ]);
  return [...head, ...rules, ...no];
}

/** /dev/null, which every container has. */
export const onlyNull = runtimeFilter([{ major: 1, minor: 3 }]);

/** Lets any node be made as well, as the default of runtimes does: the access is BPF_DEVCG_ACC_MKNOD alone. */
export function withAnyMknod(filter: Program): Program {
  const headLength = 6; // after it the access is in R3
  const rule = [
    instruction(JUMP_NOT_EQUAL, { dst: 3, imm: 1, offset: 2 }),
    instruction(Op.MOV64, { dst: 0, imm: 1 }),
    instruction(Op.EXIT),
  ];
  return [...filter.slice(0, headLength), ...rule, ...filter.slice(headLength)];
}

/** Calls bpf_get_current_uid_gid. */
export const withHelper: Program = [instruction(Op.CALL, { imm: 15 }), ...no];

/** Refers to a map, by its descriptor. */
export function withMap(map: Fd): Program {
  const value = instruction(Op.LOAD_IMMEDIATE64, { dst: 2, src: 1, imm: map.number });
  return [value, instruction(0), ...no];
}

/** Loads and attaches; answers the program's number. */
export function install(
  folder: CgroupFolder,
  program: Program,
  { name = "", flags = AttachFlag.MULTI as number } = {},
): number {
  const loaded = loadDeviceProgram(encodeProgram(program), name);
  try {
    attachDeviceProgram(folder.fd, loaded, { flags });
    return readProgram(loaded).id;
  } finally {
    loaded.close();
  }
}

const BPF_LINK_CREATE = 28;
const BPF_CGROUP_DEVICE = 6;

/** Attaches by a link; the filter goes when the descriptor is closed. */
export function installByLink(folder: CgroupFolder, program: Program): Fd {
  const loaded = loadDeviceProgram(encodeProgram(program), "linked");
  try {
    const attributes = offHeap(64);
    for (const [i, value] of [loaded.number, folder.fd.number, BPF_CGROUP_DEVICE].entries()) {
      attributes.writeUInt32LE(value, i * 4);
    }
    return Fd.own(bpf("attach by a link", BPF_LINK_CREATE, attributes));
  } finally {
    loaded.close();
  }
}

/** Puts a program in front of what is there, as hooks do that let a container at one more device. */
export function putInFront(folder: CgroupFolder, front: Program): void {
  const [id = 0] = deviceProgramsOf(folder.fd).ids;
  const before = openProgram(id);
  const code = Buffer.concat([encodeProgram(front), readProgram(before).code ?? Buffer.alloc(0)]);
  const now = loadDeviceProgram(code, "hook");
  try {
    attachDeviceProgram(folder.fd, now, { flags: AttachFlag.MULTI | AttachFlag.REPLACE, replaced: before });
  } finally {
    before.close();
    now.close();
  }
}

/** The same as `install`, for who has no descriptor of the cgroup. */
export function installAt(path: string, program: Program): number {
  const folder = CgroupFolder.open(path, new BlockingWrites());
  try {
    return install(folder, program);
  } finally {
    folder.close();
  }
}

/** Takes what is attached off, and attaches the program in its place, as `runc update` does. */
export function reinstall(folder: CgroupFolder, program: Program): void {
  const before = deviceProgramsOf(folder.fd).ids;
  install(folder, program);
  for (const id of before) detach(folder, id);
}

export function detach(folder: CgroupFolder, id: number): void {
  const program: Fd = openProgram(id);
  try {
    detachDeviceProgram(folder.fd, program);
  } finally {
    program.close();
  }
}

/** The instructions of a loaded program, in hex. */
export function codeOf(id: number): string {
  const program = openProgram(id);
  try {
    return readProgram(program).code?.toString("hex") ?? "hidden";
  } finally {
    program.close();
  }
}
