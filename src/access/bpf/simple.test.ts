import assert from "node:assert/strict";
import { test } from "node:test";
import { crunFilter } from "../../../test/scenes/captured-filters.ts";
import { decodeProgram } from "./instruction.ts";
import { problemOf } from "./simple.ts";

test("problemOf() has no word against the filter of a runtime", () => {
  assert.equal(problemOf(crunFilter), undefined);
});

const exit = "9500000000000000";
const rows = [
  { says: "a helper", code: `8500000005000000${exit}`, problem: /calls a helper/ },
  { says: "a function", code: `8510000001000000${exit}`, problem: /calls a function/ },
  { says: "a 64-bit value", code: `18110000030000000000000000000000${exit}`, problem: /64-bit value/ },
  { says: "blinded constants", code: `b40b0000dec0adde${exit}`, problem: /bpf_jit_harden/ },
  { says: "an atomic operation", code: `db1af8ff00000000${exit}`, problem: /operation 0xdb/ },
  { says: "a tail call", code: `f500000000000000${exit}`, problem: /operation 0xf5/ },
  { says: "a byte swap", code: `dc00000010000000${exit}`, problem: /operation 0xdc/ },
  { says: "a signed division", code: `3700010003000000${exit}`, problem: /operation 0x37/ },
  { says: "a jump past the end", code: `0500010000000000${exit}`, problem: /jumps out.*instruction 0/ },
  { says: "a jump before the start", code: `0500feff00000000${exit}`, problem: /jumps out/ },
  { says: "an empty program", code: "", problem: /no instructions/ },
];
for (const { says, code, problem } of rows) {
  test(`problemOf() reports ${says}`, () => {
    assert.match(problemOf(decodeProgram(Buffer.from(code, "hex"))) ?? "", problem);
  });
}
