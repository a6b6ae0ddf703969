import assert from "node:assert/strict";
import { test } from "node:test";
import { isPciAddress, parsePciAddress } from "./address.ts";

const good = [
  { says: "keeps the kernel's own form", in: "0000:3b:02.1", out: "0000:3b:02.1" },
  { says: "adds the domain that was left out", in: "01:00.0", out: "0000:01:00.0" },
  { says: "lowers capitals", in: "0000:AF:1F.7", out: "0000:af:1f.7" },
  { says: "takes a long domain", in: "10000:01:00.0", out: "10000:01:00.0" },
];
for (const row of good) {
  test(`parsePciAddress() ${row.says}`, () => assert.equal(parsePciAddress(row.in), row.out));
}

const bad = [
  "",
  "0000:01:00",
  "0000:01:00.8",
  "0000:01:20.0",
  "000:01:00.0",
  "0000:01:00.0 ",
  "../01:00.0",
  "0000:1:00.0",
];
for (const text of bad) {
  test(`parsePciAddress() refuses "${text}"`, () => {
    assert.throws(() => parsePciAddress(text), { name: "SyntaxError", message: /Cannot read/ });
  });
}

test("isPciAddress() distinguishes addresses from the other names of a sysfs folder", () => {
  const names = ["0000:01:10.0", "power", "01:10.0", "10000:01:00.0", "0000:AB:00.0"];
  assert.deepEqual(names.filter(isPciAddress), ["0000:01:10.0", "10000:01:00.0"]);
});
