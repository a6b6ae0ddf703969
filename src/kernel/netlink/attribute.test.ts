import assert from "node:assert/strict";
import { test } from "node:test";
import { AttributeDecoder, encodeAttributes } from "./attribute.ts";

test("AttributeEncoder and AttributeDecoder agree on every kind of value", () => {
  const bytes = encodeAttributes((encoder) =>
    encoder
      .u8(1, 7)
      .u32(2, 0xffff_fffe)
      .string(3, "eth0")
      .nested(4, (inner) => inner.string(5, "a").string(5, "b"))
      .plainNested(6, (inner) => inner.u8(1, 1)),
  );
  const decoder = new AttributeDecoder(bytes);
  assert.equal(bytes.length % 4, 0);
  assert.deepEqual(
    [decoder.u8(1), decoder.u32(2), decoder.string(3), decoder.nested(4)?.strings(5), decoder.nested(6)?.u8(1)],
    [7, 0xffff_fffe, "eth0", ["a", "b"], 1],
  );
  assert.equal(decoder.u8(9), undefined);
  assert.equal(decoder.problem, undefined);
});

test("AttributeDecoder reads a value of the wrong length as undefined and remembers the first one", () => {
  const bytes = encodeAttributes((encoder) => encoder.nested(1, (inner) => inner.u8(2, 1)).u32(3, 1));
  const decoder = new AttributeDecoder(bytes);
  assert.equal(decoder.nested(1)?.u32(2), undefined);
  assert.equal(decoder.u8(3), undefined);
  assert.equal(decoder.problem, "attribute 2 is 1 bytes long, not 4");
});

const broken = ["0300", "03000100", "00000100", "ffff0100aabb", "0800010001000000 0500"];
for (const hex of broken) {
  test(`AttributeDecoder survives ${hex}`, () => {
    const decoder = new AttributeDecoder(Buffer.from(hex.replaceAll(" ", ""), "hex"));
    assert.doesNotThrow(() => [decoder.u32(1), decoder.string(1), decoder.nested(1), decoder.strings(1)]);
  });
}

test("AttributeDecoder says where a length makes no sense", () => {
  const decoder = new AttributeDecoder(Buffer.from("ffff0100aabbccdd", "hex"));
  assert.match(decoder.problem ?? "", /attribute at byte 0 says it is 65535 bytes long, 8 are left/);
});
