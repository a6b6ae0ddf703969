import assert from "node:assert/strict";
import { test } from "node:test";
import { booleanOf, countOf, oidOf, readElements, readOnly } from "./der.ts";
import { IdentityError } from "./error.ts";

const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");
const refused = (error: unknown) => error instanceof IdentityError && error.fault.kind === "bad-certificate";

const lengths: readonly (readonly [says: string, hex: string, body: string | undefined])[] = [
  ["of the short form", "04 01 aa", "aa"],
  ["in four bytes, the most", "04 84 00000001 aa", "aa"],
  ["in five bytes", "04 85 0000000001 aa", undefined],
  ["that is not said before the end", `04 80 ${"aa".repeat(126)} 0000`, undefined],
  ["cut short", "04 82 00", undefined],
  ["of one byte more than there is", "04 02 aa", undefined],
];
for (const [says, hex, body] of lengths) {
  test(`readElements() ${body === undefined ? "refuses" : "reads"} a length ${says}`, () => {
    if (body === undefined) assert.throws(() => readElements(bytes(hex)), refused);
    else assert.equal(readOnly(bytes(hex)).body.toString("hex"), body);
  });
}

const counts: readonly (readonly [hex: string, count: number | undefined])[] = [
  ["02 01 7f", 127],
  ["02 02 0080", 128],
  ["02 02 007f", undefined],
  ["02 01 80", undefined],
  ["02 00", undefined],
  ["02 04 7fffffff", 2 ** 31 - 1],
  ["02 05 0080000000", undefined],
];
for (const [hex, count] of counts) {
  test(`countOf() takes ${hex} for ${count ?? "no count"}`, () => {
    if (count === undefined) assert.throws(() => countOf(readOnly(bytes(hex))), refused);
    else assert.equal(countOf(readOnly(bytes(hex))), count);
  });
}

test("readOnly() wants one element, no more and none", () => {
  assert.throws(() => readOnly(bytes("05 00 05 00")), refused);
  assert.throws(() => readOnly(bytes("")), refused);
});

test("booleanOf() takes 0 and 255, and nothing that another reader could take for true", () => {
  assert.deepEqual([booleanOf(readOnly(bytes("01 01 00"))), booleanOf(readOnly(bytes("01 01 ff")))], [false, true]);
  for (const hex of ["01 01 01", "01 02 ffff", "01 00"]) assert.throws(() => booleanOf(readOnly(bytes(hex))), refused);
});

for (const [hex, oid] of [
  ["06 03 55 1d 0f", "2.5.29.15"],
  ["06 02 2a 03", "1.2.3"],
  ["06 02 88 37", "2.999"],
  ["06 02 27 00", "0.39.0"],
] as const) {
  test(`oidOf() reads ${oid}`, () => assert.equal(oidOf(readOnly(bytes(hex))), oid));
}
