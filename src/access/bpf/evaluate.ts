import { Class, type Instruction, jumpDistance, Op, type Program } from "./instruction.ts";

/** The kernel's query to a device program; access as in linux/bpf.h: mknod 1, read 2, write 4. */
interface DeviceQuestion {
  readonly major: number;
  readonly minor: number;
  readonly access: number;
  /** A character device by default. */
  readonly type?: "block" | "char";
}

/** What open(2) with O_RDWR requests. */
export const OPEN_READ_WRITE = 2 | 4;

/** BPF_DEVCG_DEV_BLOCK and _CHAR. */
const types = { block: 1, char: 2 } as const;
/** More than the verifier lets a program take. */
const MAX_STEPS = 1_000_000;
const [U32, U64] = [0xffff_ffffn, 0xffff_ffff_ffff_ffffn];
// Where context and stack seem to lie: far apart, so that an address says which it is.
const [CONTEXT_AT, STACK_END] = [0x1_0000_0000n, 0x2_0000_0000n];
const STACK_BYTES = 512;
const sizes: Readonly<Record<number, number>> = { 0: 4, 8: 2, 16: 1, 24: 8 };

/**
 * What the program answers, as the kernel would run it: whether the access is allowed. Only for programs that `problemOf`
 * has no word against.
 * @throws {Error} for a program that does something the verifier would not have let pass.
 */
export function allows(program: Program, question: DeviceQuestion): boolean {
  const machine = new Machine(question);
  let at = 0;
  for (let step = 0; step < MAX_STEPS; step++) {
    const one = program[at];
    if (!one) throw new Error(`Cannot run a BPF program past its end, instruction ${at}`);
    if (one.op === Op.EXIT) return ((machine.registers[0] ?? 0n) & 1n) === 1n;
    at += 1 + machine.run(one);
  }
  throw new Error(`Cannot run a BPF program for more than ${MAX_STEPS} steps`);
}

class Machine {
  readonly registers: bigint[] = Array<bigint>(11).fill(0n);
  readonly #context = Buffer.alloc(12);
  readonly #stack = Buffer.alloc(STACK_BYTES);

  constructor({ major, minor, access, type = "char" }: DeviceQuestion) {
    this.#context.writeUInt32LE(((access << 16) | types[type]) >>> 0, 0);
    this.#context.writeUInt32LE(major, 4);
    this.#context.writeUInt32LE(minor, 8);
    this.registers[1] = CONTEXT_AT;
    this.registers[10] = STACK_END;
  }

  /** Answers how many instructions to go over. */
  run(one: Instruction): number {
    const kind = one.op & 7;
    if (kind === Class.JMP || kind === Class.JMP32) return this.#isTaken(one) ? (jumpDistance(one) ?? 0) : 0;
    if (kind === Class.ALU32 || kind === Class.ALU64) this.#compute(one);
    else this.#access(one);
    return 0;
  }

  #register(number: number): bigint {
    return this.registers[number] ?? 0n;
  }

  #operand({ op, src, imm }: Instruction): bigint {
    return (op & 8) !== 0 ? this.#register(src) : BigInt.asUintN(64, BigInt(imm));
  }

  #compute(one: Instruction): void {
    const is32 = (one.op & 7) === Class.ALU32;
    const mask = is32 ? U32 : U64;
    const bits = is32 ? 32 : 64;
    const [left, right] = [this.#register(one.dst) & mask, this.#operand(one) & mask];
    const compute = arithmetic[one.op >> 4];
    if (!compute) throw unknown(one);
    this.registers[one.dst] = compute({ left, right, bits }) & mask;
  }

  #isTaken(one: Instruction): boolean {
    if (one.op === Op.JUMP || one.op === Op.JUMP_FAR) return true;
    const bits = (one.op & 7) === Class.JMP32 ? 32 : 64;
    const cut = (value: bigint) => BigInt.asUintN(bits, value);
    const compare = comparisons[one.op >> 4];
    if (!compare) throw unknown(one);
    return compare({ left: cut(this.#register(one.dst)), right: cut(this.#operand(one)), bits });
  }

  #access(one: Instruction): void {
    const kind = one.op & 7;
    const size = sizes[one.op & 0x18] ?? 0;
    const base = this.#register(kind === Class.LDX ? one.src : one.dst) + BigInt(one.offset);
    const { memory, at } = this.#memory(base, size);
    if (kind === Class.LDX) {
      const bytes = Buffer.alloc(8);
      memory.copy(bytes, 0, at, at + size);
      this.registers[one.dst] = bytes.readBigUInt64LE();
    } else {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64LE(kind === Class.STX ? this.#register(one.src) : BigInt.asUintN(64, BigInt(one.imm)));
      bytes.copy(memory, at, 0, size);
    }
  }

  #memory(address: bigint, size: number): { memory: Buffer; at: number } {
    const places = [
      { memory: this.#context, at: Number(address - CONTEXT_AT) },
      { memory: this.#stack, at: Number(address - STACK_END) + STACK_BYTES },
    ];
    const found = places.find(({ memory, at }) => at >= 0 && at + size <= memory.length);
    if (!found) throw new Error(`Cannot run a BPF program that touches ${size} bytes outside its context and stack`);
    return found;
  }
}

interface Operands {
  readonly left: bigint;
  readonly right: bigint;
  readonly bits: 32 | 64;
}

const shiftOf = ({ right, bits }: Operands) => right & BigInt(bits - 1);
const signed = ({ left, right, bits }: Operands) => [BigInt.asIntN(bits, left), BigInt.asIntN(bits, right)] as const;

/** BPF_ADD to BPF_ARSH, by the high four bits. Division by zero gives 0, its remainder the dividend. */
const arithmetic: readonly ((of: Operands) => bigint)[] = [
  ({ left, right }) => left + right,
  ({ left, right }) => left - right,
  ({ left, right }) => left * right,
  ({ left, right }) => (right === 0n ? 0n : left / right),
  ({ left, right }) => left | right,
  ({ left, right }) => left & right,
  (of) => of.left << shiftOf(of),
  (of) => of.left >> shiftOf(of),
  ({ left }) => -left,
  ({ left, right }) => (right === 0n ? left : left % right),
  ({ left, right }) => left ^ right,
  ({ right }) => right,
  (of) => signed(of)[0] >> shiftOf(of),
];

/** BPF_JEQ to BPF_JSLE, by the high four bits; those in between (JA, CALL, EXIT) are no comparisons. */
const comparisons: readonly (((of: Operands) => boolean) | undefined)[] = [
  undefined,
  ({ left, right }) => left === right,
  ({ left, right }) => left > right,
  ({ left, right }) => left >= right,
  ({ left, right }) => (left & right) !== 0n,
  ({ left, right }) => left !== right,
  (of) => signed(of)[0] > signed(of)[1],
  (of) => signed(of)[0] >= signed(of)[1],
  undefined,
  undefined,
  ({ left, right }) => left < right,
  ({ left, right }) => left <= right,
  (of) => signed(of)[0] < signed(of)[1],
  (of) => signed(of)[0] <= signed(of)[1],
];

function unknown({ op }: Instruction): Error {
  return new Error(`Cannot run operation 0x${op.toString(16)} of a BPF program`);
}
