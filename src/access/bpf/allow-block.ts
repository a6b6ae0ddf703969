import type { DeviceNumber } from "../../kernel/index.ts";
import { withoutRange } from "./cut-range.ts";
import { type Instruction, instruction, isSameProgram, Op, type Program } from "./instruction.ts";

/** BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ and _WRITE, include/uapi/linux/bpf.h. */
const CHAR = 2;
const READ_WRITE = 2 | 4;
// struct bpf_cgroup_dev_ctx: u32 access_type (access << 16 | type), u32 major, u32 minor.
const context = { accessType: 0, major: 4, minor: 8 } as const;

/** "NSMa" in the first instruction of a block of ours; the next two carry the program it was put in front of, and a count. */
const MARK = 0x4e534d61;
const HEAD_LENGTH = 11;
const DEVICE_LENGTH = 4;
/** A jump reaches 32767 instructions far. */
const MAX_DEVICES = 4096;

const [R0, R1, R2, R3, R4, R5] = [0, 1, 2, 3, 4, 5] as const;

/** Our part of a program: allows reading and writing of some character devices, and leaves all else to what follows. */
export interface AllowBlock {
  /** In order, none twice. */
  readonly devices: readonly DeviceNumber[];
  /** The program that was there before; it may still live, in the hands of who made it. */
  readonly originalId: number;
}

/** A program taken apart. */
interface SplitProgram {
  /** Undefined when nothing of ours is in it. */
  readonly block: AllowBlock | undefined;
  /** The program as it was before us. */
  readonly rest: Program;
}

/**
 * The block, to be put in front of a program. It leaves R1, the context, as it is, and falls through at its end: the program
 * behind sees what it would have seen alone.
 */
export function encodeBlock({ devices, originalId }: AllowBlock): Program {
  const length = HEAD_LENGTH + devices.length * DEVICE_LENGTH;
  const toEnd = (at: number) => length - at - 1;
  const head: Instruction[] = [
    instruction(Op.MOV32, { dst: R5, imm: MARK }),
    instruction(Op.MOV32, { dst: R5, imm: originalId | 0 }),
    instruction(Op.MOV32, { dst: R5, imm: devices.length }),
    instruction(Op.LOAD_WORD, { dst: R2, src: R1, offset: context.accessType }),
    instruction(Op.MOV32_REGISTER, { dst: R3, src: R2 }),
    instruction(Op.AND32, { dst: R3, imm: 0xffff }),
    instruction(Op.JUMP_NOT_EQUAL32, { dst: R3, imm: CHAR, offset: toEnd(6) }),
    instruction(Op.AND32, { dst: R2, imm: ~((READ_WRITE << 16) | 0xffff) }),
    instruction(Op.JUMP_NOT_EQUAL32, { dst: R2, imm: 0, offset: toEnd(8) }),
    instruction(Op.LOAD_WORD, { dst: R3, src: R1, offset: context.major }),
    instruction(Op.LOAD_WORD, { dst: R4, src: R1, offset: context.minor }),
  ];
  return [...head, ...devices.flatMap(encodeDevice)];
}

function encodeDevice({ major, minor }: DeviceNumber): Program {
  return [
    instruction(Op.JUMP_NOT_EQUAL32, { dst: R3, imm: major, offset: 3 }),
    instruction(Op.JUMP_NOT_EQUAL32, { dst: R4, imm: minor, offset: 2 }),
    instruction(Op.MOV64, { dst: R0, imm: 1 }),
    instruction(Op.EXIT),
  ];
}

/** Finds what is ours, wherever it is: others may have put something in front since. */
export function splitProgram(program: Program): SplitProgram {
  const found = program.flatMap((_, at) => blockAt(program, at) ?? []);
  const [first] = found;
  if (!first) return { block: undefined, rest: program };
  // Last first, so that the places of the others stay right.
  const rest = found.toReversed().reduce((left, { at, length }) => withoutRange(left, at, length), program);
  const devices = sortedDevices(found.flatMap(({ block }) => block.devices));
  return { block: { devices, originalId: first.block.originalId }, rest };
}

/** The program with the devices allowed in front; the rest alone when there are none. */
export function joinProgram(block: AllowBlock, rest: Program): Program {
  return block.devices.length === 0 ? rest : [...encodeBlock(block), ...rest];
}

/** Each device once, by number. */
export function sortedDevices(devices: readonly DeviceNumber[]): readonly DeviceNumber[] {
  const byKey = new Map(devices.map((device) => [`${device.major}:${device.minor}`, device]));
  return [...byKey.values()].sort((a, b) => a.major - b.major || a.minor - b.minor);
}

function blockAt(program: Program, at: number): { at: number; length: number; block: AllowBlock } | undefined {
  const [mark, original, count] = program.slice(at, at + 3);
  if (mark?.op !== Op.MOV32 || mark.imm !== MARK || !original || !count) return undefined;
  if (count.imm < 1 || count.imm > MAX_DEVICES) return undefined;
  const length = HEAD_LENGTH + count.imm * DEVICE_LENGTH;
  const rows = program.slice(at + HEAD_LENGTH, at + length);
  const devices = Array.from({ length: count.imm }, (_, i) => ({
    major: rows[i * DEVICE_LENGTH]?.imm ?? -1,
    minor: rows[i * DEVICE_LENGTH + 1]?.imm ?? -1,
  }));
  const block = { devices, originalId: original.imm >>> 0 };
  // A mark alone is not enough: all of it must be as we write it.
  return isSameProgram(encodeBlock(block), program.slice(at, at + length)) ? { at, length, block } : undefined;
}
