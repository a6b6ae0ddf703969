import { type Instruction, jumpDistance, Op, type Program } from "./instruction.ts";

/**
 * The program without `count` instructions from `at` on. Jumps over them become shorter, a jump to their first goes to what
 * follows them.
 * @throws {RangeError} when something jumps into their middle.
 */
export function withoutRange(program: Program, at: number, count: number): Program {
  const end = at + count;
  const moved = (index: number) => (index <= at ? index : index - count);
  return program.flatMap((one, i) => {
    if (i >= at && i < end) return [];
    const distance = jumpDistance(one);
    if (distance === undefined) return [one];
    const target = i + 1 + distance;
    if (target > at && target < end) throw new RangeError(`instruction ${i} jumps into what is to be taken out`);
    return [withDistance(one, moved(target) - moved(i + 1))];
  });
}

function withDistance(one: Instruction, distance: number): Instruction {
  return one.op === Op.JUMP_FAR ? { ...one, imm: distance } : { ...one, offset: distance };
}
