import assert from "node:assert/strict";
import { test } from "node:test";
import { crunFilter } from "../../../test/scenes/captured-filters.ts";
import { encodeBlock, joinProgram, sortedDevices, splitProgram } from "./allow-block.ts";
import { allows } from "./evaluate.ts";
import { decodeProgram, encodeProgram, instruction, Op } from "./instruction.ts";

const group = { major: 245, minor: 3 };
const container = { major: 10, minor: 196 };
const [MKNOD, READ, WRITE] = [1, 2, 4] as const;

test("encodeBlock() writes what the kernel showed of it after the verifier had taken it", () => {
  // The block in front of crun's filter on Linux 6.18: BPF_PROG_LOAD, then BPF_OBJ_GET_INFO_BY_FD, the first 19 instructions.
  const shown = `b4050000614d534e b405000007000000 b405000002000000 6112000000000000 bc23000000000000 54030000ffff0000
     56030c0002000000 540200000000f9ff 56020a0000000000 6113040000000000 6114080000000000
     560303000a000000 56040200c4000000 b700000001000000 9500000000000000
     56030300f5000000 5604020003000000 b700000001000000 9500000000000000`.replace(/\s/g, "");
  const block = { devices: [container, group], originalId: 7 };
  assert.equal(encodeProgram(encodeBlock(block)).toString("hex"), shown);
});

const rows = [
  { says: "lets the device be read and written", request: { ...group, access: READ | WRITE }, answer: true },
  { says: "lets it be read only", request: { ...group, access: READ }, answer: true },
  { says: "lets it be written only", request: { ...group, access: WRITE }, answer: true },
  { says: "leaves mknod with reading to the rest", request: { ...group, access: MKNOD | READ }, answer: false },
  { says: "leaves another minor to the rest", request: { major: 245, minor: 4, access: READ }, answer: false },
  { says: "leaves another major to the rest", request: { major: 246, minor: 3, access: READ }, answer: false },
  { says: "keeps what the rest allows", request: { major: 1, minor: 3, access: MKNOD | READ | WRITE }, answer: true },
];
for (const { says, request, answer } of rows) {
  test(`joinProgram() makes a filter that ${says}`, () => {
    const joined = joinProgram({ devices: [group], originalId: 7 }, crunFilter);
    assert.equal(allows(joined, request), answer);
  });
}

test("joinProgram() makes a filter that leaves block devices of the same number to the rest", () => {
  const [no, exit] = [instruction(Op.MOV64, { dst: 0, imm: 0 }), instruction(Op.EXIT)];
  const joined = joinProgram({ devices: [group], originalId: 7 }, [no, exit]);
  assert.equal(allows(joined, { ...group, access: READ, type: "block" }), false);
  assert.equal(allows(joined, { ...group, access: READ }), true);
});

test("splitProgram() gives back the block and the very program that was there before", () => {
  const block = { devices: [container, group], originalId: 4_000_000_000 };
  const split = splitProgram(decodeProgram(encodeProgram(joinProgram(block, crunFilter))));
  assert.deepEqual(split.block, block);
  assert.deepEqual(split.rest, crunFilter);
});

test("splitProgram() finds the block behind what others put in front, and mends their jumps over it", () => {
  const theirs = [
    instruction(Op.LOAD_WORD, { dst: 2, src: 1, offset: 4 }),
    // One jump to the start of our block, one over it into the middle of what was there before.
    instruction(0x55, { dst: 2, imm: 9, offset: 1 }),
    instruction(Op.JUMP, { offset: 15 + 2 }),
  ];
  const rest = [...crunFilter.slice(-4)];
  const found = splitProgram([...theirs, ...joinProgram({ devices: [group], originalId: 7 }, rest)]);
  assert.deepEqual(found.block?.devices, [group]);
  assert.deepEqual(found.rest, [...theirs.slice(0, 2), instruction(Op.JUMP, { offset: 2 }), ...rest]);
});

test("splitProgram() takes two blocks as one", () => {
  const once = joinProgram({ devices: [group], originalId: 7 }, crunFilter);
  const twice = joinProgram({ devices: [container], originalId: 8 }, once);
  const found = splitProgram(twice);
  assert.deepEqual(found.block?.devices, [container, group]);
  assert.deepEqual(found.rest, crunFilter);
});

test("splitProgram() takes a mark without the rest of a block for instructions of another program", () => {
  const [mark, ...others] = encodeBlock({ devices: [group], originalId: 7 });
  const program = [mark ?? instruction(Op.EXIT), ...others.slice(0, -1), ...crunFilter];
  assert.deepEqual(splitProgram(program), { block: undefined, rest: program });
});

test("joinProgram() with no device is the rest alone", () => {
  assert.equal(joinProgram({ devices: [], originalId: 7 }, crunFilter), crunFilter);
});

test("sortedDevices() lists each once, in order", () => {
  assert.deepEqual(sortedDevices([group, container, { ...group }]), [container, group]);
});
