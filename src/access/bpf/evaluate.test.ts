import assert from "node:assert/strict";
import { test } from "node:test";
import { crunFilter } from "../../../test/scenes/captured-filters.ts";
import { allows } from "./evaluate.ts";
import { decodeProgram } from "./instruction.ts";
import { problemOf } from "./simple.ts";

const rows = [
  { says: "lets /dev/null be opened", request: { major: 1, minor: 3, access: 6 }, answer: true },
  { says: "lets any node be made", request: { major: 77, minor: 1, access: 1 }, answer: true },
  { says: "lets the device of the rule be opened", request: { major: 10, minor: 196, access: 6 }, answer: true },
  { says: "refuses another device", request: { major: 245, minor: 3, access: 6 }, answer: false },
  { says: "lets all of /dev/pts be opened", request: { major: 136, minor: 99, access: 6 }, answer: true },
];
for (const { says, request, answer } of rows) {
  test(`allows() knows that crun's filter ${says}`, () => assert.equal(allows(crunFilter, request), answer));
}

/** Instructions in hex; the context is character device 3:4, opened for reading. */
function run(code: string): boolean {
  const program = decodeProgram(Buffer.from(code.replace(/\s/g, ""), "hex"));
  assert.equal(problemOf(program), undefined);
  return allows(program, { major: 3, minor: 4, access: 2 });
}

const programs = [
  // r0 = *(u8 *)(r1 + 4); r0 = r0 == 3
  {
    says: "loads single bytes",
    code: "7110040000000000 1500010003000000 b700000000000000 5400000001000000 9500000000000000",
  },
  // *(u64 *)(r10 - 8) = r1; r2 = *(u64 *)(r10 - 8); r0 = *(u32 *)(r2 + 8); r0 &= 4; r0 >>= 2
  {
    says: "keeps a pointer on the stack",
    code: "7b1af8ff00000000 79a2f8ff00000000 6120080000000000 5700000004000000 7700000002000000 9500000000000000",
  },
  // r0 = -1; if r0 s< 0 goto +1; r0 = 0; r0 &= 1
  {
    says: "compares signed numbers",
    code: "b7000000ffffffff c500010000000000 b700000000000000 5700000001000000 9500000000000000",
  },
  // w0 = -1; if r0 == 0xffffffff (as w) …: a 32-bit result has no sign above
  {
    says: "cuts 32-bit results",
    code: "b4000000ffffffff 7700000020000000 a700000001000000 9500000000000000",
  },
  // r0 = 7; r2 = 0; r0 /= r2 gives 0; r0 ^= 1
  {
    says: "divides by zero as the kernel does",
    code: "b700000007000000 b702000000000000 3f20000000000000 a700000001000000 9500000000000000",
  },
];
for (const { says, code } of programs) {
  test(`allows() ${says}`, () => assert.equal(run(code), true));
}

test("allows() does not follow a program out of its memory, or for ever", () => {
  const outside = decodeProgram(Buffer.from("79100c0000000000", "hex"));
  assert.throws(() => allows(outside, { major: 0, minor: 0, access: 0 }), /outside its context/);
  const loop = decodeProgram(Buffer.from("0500ffff00000000", "hex"));
  assert.throws(() => allows(loop, { major: 0, minor: 0, access: 0 }), /steps/);
});
