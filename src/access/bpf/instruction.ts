// One instruction of BPF: 8 bytes, include/uapi/linux/bpf.h struct bpf_insn and Documentation/bpf/standardization.

/** u8 operation, u4 destination and source register, s16 offset, s32 immediate. */
export interface Instruction {
  readonly op: number;
  readonly dst: number;
  readonly src: number;
  readonly offset: number;
  readonly imm: number;
}

/** Ordered instructions; jumps are relative, so a program may be moved as a whole. */
export type Program = readonly Instruction[];

export const INSTRUCTION_BYTES = 8;

/** Classes: the lowest three bits of an operation. */
export const Class = { LD: 0, LDX: 1, ST: 2, STX: 3, ALU32: 4, JMP: 5, JMP32: 6, ALU64: 7 } as const;

/** The operations that are written here, and those that need a rule of their own. */
export const Op = {
  /** dst = *(u32 *)(src + offset) */
  LOAD_WORD: 0x61,
  MOV32: 0xb4,
  MOV32_REGISTER: 0xbc,
  MOV64: 0xb7,
  AND32: 0x54,
  SHIFT_RIGHT32: 0x74,
  /** if (u32)dst != imm goto next + offset */
  JUMP_NOT_EQUAL32: 0x56,
  JUMP: 0x05,
  /** The distance is in the immediate (Linux 6.6). */
  JUMP_FAR: 0x06,
  CALL: 0x85,
  EXIT: 0x95,
  LOAD_IMMEDIATE64: 0x18,
} as const;

/** One instruction; what is not given is 0. */
export function instruction(op: number, parts: Partial<Omit<Instruction, "op">> = {}): Instruction {
  return { op, dst: 0, src: 0, offset: 0, imm: 0, ...parts };
}

export function encodeProgram(program: Program): Buffer {
  const bytes = Buffer.alloc(program.length * INSTRUCTION_BYTES);
  program.forEach(({ op, dst, src, offset, imm }, i) => {
    const at = i * INSTRUCTION_BYTES;
    bytes.writeUInt8(op, at);
    bytes.writeUInt8((src << 4) | dst, at + 1);
    bytes.writeInt16LE(offset, at + 2);
    bytes.writeInt32LE(imm, at + 4);
  });
  return bytes;
}

/** @throws {RangeError} for a length that is no whole number of instructions. */
export function decodeProgram(bytes: Buffer): Program {
  if (bytes.length % INSTRUCTION_BYTES !== 0) throw new RangeError(`${bytes.length} bytes are no whole BPF program`);
  return Array.from({ length: bytes.length / INSTRUCTION_BYTES }, (_, i) => {
    const at = i * INSTRUCTION_BYTES;
    const registers = bytes.readUInt8(at + 1);
    return {
      op: bytes.readUInt8(at),
      dst: registers & 15,
      src: registers >> 4,
      offset: bytes.readInt16LE(at + 2),
      imm: bytes.readInt32LE(at + 4),
    };
  });
}

/** How far a jump goes past its next instruction; undefined for what does not jump. */
export function jumpDistance({ op, offset, imm }: Instruction): number | undefined {
  const kind = op & 7;
  if ((kind !== Class.JMP && kind !== Class.JMP32) || op === Op.CALL || op === Op.EXIT) return undefined;
  return op === Op.JUMP_FAR ? imm : offset;
}

/** Whether two programs are the same, instruction by instruction. */
export function isSameProgram(one: Program, other: Program): boolean {
  return one.length === other.length && encodeProgram(one).equals(encodeProgram(other));
}
