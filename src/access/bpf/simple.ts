import { Class, type Instruction, jumpDistance, Op, type Program } from "./instruction.ts";

/** BPF_MEM, the addressing of plain loads and stores. */
const MEM = 0x60;
const MAX_REGISTER = 10;
/** How constant blinding (net.core.bpf_jit_harden) shows: the kernel's own register carries every constant. */
const BLINDING_REGISTER = 11;
/** BPF_COMPLEXITY_LIMIT_INSNS, include/linux/bpf.h: what a privileged loader may hand to the verifier. */
export const MAX_INSTRUCTIONS = 1_000_000;

/** ALU operations by their high four bits: all up to ARSH (0xc), not the byte swaps (0xd). */
const LAST_ALU = 0xc0;
/** Jumps by their high four bits: JA to JSLE, not CALL, EXIT and what came later (0xe). */
const LAST_JUMP = 0xd0;

/**
 * Why a program as the kernel shows it cannot be loaded again with something in front; undefined when it can. Device
 * filters of runtimes and of systemd are loads from the context, arithmetic, jumps and exits: all else is refused, because
 * what the verifier has made of it is not what it takes.
 */
export function problemOf(program: Program): string | undefined {
  if (program.length === 0) return "it has no instructions";
  for (const [at, one] of program.entries()) {
    const problem = problemOfOne(one) ?? problemOfJump(program, at);
    if (problem !== undefined) return `${problem} (instruction ${at})`;
  }
  return undefined;
}

function problemOfOne({ op, dst, src, offset }: Instruction): string | undefined {
  if (dst === BLINDING_REGISTER || src === BLINDING_REGISTER) {
    return "the kernel has blinded its constants; set the sysctl net.core.bpf_jit_harden to 0 or 1 and start the pod again";
  }
  // The kernel shows the address of a helper, not its number.
  if (op === Op.CALL) return src === 0 ? "it calls a helper of the kernel" : "it calls a function";
  if (op === Op.LOAD_IMMEDIATE64) return "it loads a 64-bit value, as programs with maps do";
  const isKnown = isPlainAccess(op) || isPlainArithmetic(op, offset) || isPlainJump(op);
  if (!isKnown || dst > MAX_REGISTER || (src > MAX_REGISTER && usesSource(op))) {
    return `it has an instruction that we do not know, operation 0x${op.toString(16)}`;
  }
  return undefined;
}

function isPlainAccess(op: number): boolean {
  const kind = op & 7;
  return (kind === Class.LDX || kind === Class.ST || kind === Class.STX) && (op & 0xe0) === MEM;
}

/** An offset turns some operations into newer ones: signed division, sign extension. */
function isPlainArithmetic(op: number, offset: number): boolean {
  const kind = op & 7;
  return (kind === Class.ALU32 || kind === Class.ALU64) && (op & 0xf0) <= LAST_ALU && offset === 0;
}

function isPlainJump(op: number): boolean {
  if (op === Op.EXIT) return true;
  const kind = op & 7;
  const isConditional = (op & 0xf0) !== 0 && (op & 0xf0) <= LAST_JUMP && (op & 0xf0) !== 0x80 && (op & 0xf0) !== 0x90;
  return op === Op.JUMP || op === Op.JUMP_FAR || ((kind === Class.JMP || kind === Class.JMP32) && isConditional);
}

function usesSource(op: number): boolean {
  return (op & 8) !== 0 || (op & 7) === Class.LDX || (op & 7) === Class.STX;
}

function problemOfJump(program: Program, at: number): string | undefined {
  const one = program[at];
  const distance = one && jumpDistance(one);
  if (distance === undefined) return undefined;
  const target = at + 1 + distance;
  return target >= 0 && target < program.length ? undefined : "it jumps out of itself";
}
