import { withoutRange } from "./cut-range.ts";
import { Class, type Instruction, instruction, Op, type Program } from "./instruction.ts";

/** BPF_REG_AX, include/linux/filter.h: the kernel's own, no program may name it. */
const AX = 11;
/** BPF_X: the operand is a register. */
const FROM_REGISTER = 0x08;
const [MOV, XOR] = [0xb0, 0xa0] as const;
const XOR64_REGISTER = 0xaf;

/**
 * The program as it was before the kernel hid its constants from just-in-time spraying (sysctl net.core.bpf_jit_harden = 2).
 * `bpf_jit_blind_insn`, kernel/bpf/core.c, turns each instruction with a constant into three: AX = constant ^ random,
 * AX ^= random, and the instruction with AX; only zero becomes `dst ^= dst`, which the verifier would not take back.
 */
export function unblind(program: Program): Program {
  let clear: Program = program.map(clearZero);
  // From the end, so that what is taken out moves nothing that is still to be read.
  for (let at = program.length - 3; at >= 0; at--) {
    const one = clearConstant(clear[at], clear[at + 1], clear[at + 2]);
    if (one) clear = withoutRange(clear.with(at + 2, one), at, 2);
  }
  return clear;
}

function clearZero(one: Instruction): Instruction {
  const isZero = one.op === XOR64_REGISTER && one.dst === one.src && one.dst !== AX;
  return isZero ? instruction(Op.MOV64, { dst: one.dst, imm: 0 }) : one;
}

function clearConstant(
  set: Instruction | undefined,
  mix: Instruction | undefined,
  use: Instruction | undefined,
): Instruction | undefined {
  if (!use || !isOnAx(set, MOV) || !isOnAx(mix, XOR) || use.src !== AX) return undefined;
  const imm = set.imm ^ mix.imm;
  const kind = use.op & 7;
  if (kind === Class.STX) return { ...use, op: use.op - Class.STX + Class.ST, src: 0, imm };
  return (use.op & FROM_REGISTER) !== 0 ? { ...use, op: use.op & ~FROM_REGISTER, src: 0, imm } : undefined;
}

function isOnAx(one: Instruction | undefined, code: number): one is Instruction {
  const kind = (one?.op ?? 0) & 7;
  return one?.dst === AX && (kind === Class.ALU32 || kind === Class.ALU64) && (one.op & 0xf8) === code;
}
