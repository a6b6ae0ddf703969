import assert from "node:assert/strict";
import { test } from "node:test";
import { settingText, settingValue } from "./setting-text.ts";

const rows = [
  { says: "a byte", hex: "07", text: "u8 7" },
  { says: "a short number", hex: "0102", text: "u16 513" },
  { says: "a number", hex: "e8030000", text: "u32 1000" },
  { says: "the greatest number", hex: "ffffffff", text: "u32 4294967295" },
  { says: "an address", hex: "ffffffffffff", text: "bytes ffffffffffff" },
  { says: "nothing", hex: "", text: "bytes " },
];
for (const { says, hex, text } of rows) {
  test(`settingText() writes ${says}, and settingValue() has it back`, () => {
    assert.equal(settingText(Buffer.from(hex, "hex")), text);
    assert.equal(settingValue(text)?.toString("hex"), hex);
  });
}

test("settingText() writes a text up to its NUL, and one that is no UTF-8 as bytes", () => {
  assert.equal(settingText(Buffer.from("to rack 4\0"), true), "text to rack 4");
  assert.equal(settingValue("text to rack 4")?.toString(), "to rack 4");
  assert.equal(settingText(Buffer.from([0xff, 0x41, 0x42, 0]), true), "bytes ff4142");
});

test("settingText() keeps a digest of what is long, a key of RSS for one, and settingValue() has none", () => {
  const key = Buffer.alloc(40, 7);
  assert.match(settingText(key), /^sha256 [0-9a-f]{32} of 40 bytes$/);
  assert.notEqual(settingText(key), settingText(Buffer.alloc(40, 8)));
  assert.equal(settingValue(settingText(key)), undefined);
  assert.equal(settingValue("EOPNOTSUPP"), undefined);
});
