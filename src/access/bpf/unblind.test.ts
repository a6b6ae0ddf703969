import assert from "node:assert/strict";
import { test } from "node:test";
import { crunFilter } from "../../../test/scenes/captured-filters.ts";
import { splitProgram } from "./allow-block.ts";
import { decodeProgram, encodeProgram } from "./instruction.ts";
import { unblind } from "./unblind.ts";

function program(hex: string) {
  return decodeProgram(Buffer.from(hex.replace(/\s/g, ""), "hex"));
}

// `sysctl net.core.bpf_jit_harden=2`, BPF_PROG_LOAD, then BPF_OBJ_GET_INFO_BY_FD, on Linux 6.18.
const blindedLoop = program(
  `b70b00003f1073b4 a70b00003c1073b4 bfb3000000000000 6112040000000000 b70b0000d54a5c09 a70b00002ab5a3f6 0fb3000000000000
   b70b00007b3b2f0a a70b00007b3b2f0a 5db3faff00000000 af00000000000000 9500000000000000`,
);
/** A block of ours for 10:196 and 245:3, and the first two instructions of what followed it. */
const blindedBlock = program(
  `b40b00006f3cbf32 a40b00000e71ec7c bcb5000000000000 b40b000028c8ed87 a40b00002fc8ed87 bcb5000000000000
   b40b000083da5e22 a40b000081da5e22 bcb5000000000000 6112000000000000 bc23000000000000 b40b0000890db934
   a40b000076f2b934 5cb3000000000000 b40b00003b3078a9 a40b0000393078a9 5eb31c0000000000 b40b00007f63388f
   a40b00007f63c170 5cb2000000000000 b40b00006ad4f0d2 a40b00006ad4f0d2 5eb2160000000000 6113040000000000
   6114080000000000 b40b0000be2db8c8 a40b0000b42db8c8 5eb3070000000000 b40b0000252f23a0 a40b0000e12f23a0
   5eb4040000000000 b70b000089e08f71 a70b000088e08f71 bfb0000000000000 9500000000000000 b40b0000260a5d25
   a40b0000d30a5d25 5eb3070000000000 b40b000070c64804 a40b000073c64804 5eb4040000000000 b70b0000ce86ee03
   a70b0000cf86ee03 bfb0000000000000 9500000000000000 6112000000000000 b40b000038a05216 a40b0000c75f5216
   5cb2000000000000`,
);

test("unblind() gives back constants, and jumps backwards", () => {
  // r3 = 3; r2 = major; r3 += -1; if r3 != 0 goto -2; r0 = 0; exit
  const clear = "b703000003000000 6112040000000000 07030000ffffffff 5503feff00000000 b700000000000000 9500000000000000";
  assert.equal(encodeProgram(unblind(blindedLoop)).toString("hex"), clear.replaceAll(" ", ""));
});

test("unblind() gives back our own block", () => {
  const { block, rest } = splitProgram(unblind(blindedBlock));
  assert.deepEqual(block, {
    devices: [
      { major: 10, minor: 196 },
      { major: 245, minor: 3 },
    ],
    originalId: 7,
  });
  assert.deepEqual(rest, crunFilter.slice(0, 2));
});

test("unblind() leaves a program alone whose constants are not hidden", () => {
  assert.deepEqual(unblind(crunFilter), crunFilter);
});
