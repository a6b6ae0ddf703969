import assert from "node:assert/strict";
import { test } from "node:test";
import { broadcastOf, contains, networkOf, type Prefix, parsePrefix } from "./prefix.ts";

const prefix = (text: string): Prefix => parsePrefix(text) ?? assert.fail(text);

for (const [text, broadcast] of [
  ["10.0.0.1/0", "255.255.255.255"],
  ["10.0.5.1/22", "10.0.7.255"],
  ["10.0.0.1/30", "10.0.0.3"],
  ["10.0.0.1/31", undefined],
  ["10.0.0.1/32", undefined],
  ["2001:db8::1/64", undefined],
] as const) {
  test(`broadcastOf() ${text} is ${broadcast ?? "none"}`, () => {
    assert.equal(broadcastOf(prefix(text)), broadcast);
  });
}

test("contains() counts bits, not bytes, and mixes no families", () => {
  assert.equal(contains(prefix("10.0.4.0/22"), "10.0.7.255"), true);
  assert.equal(contains(prefix("10.0.4.0/22"), "10.0.8.0"), false);
  assert.equal(contains(prefix("0.0.0.0/0"), "2001:db8::1"), false);
  assert.equal(contains(prefix("::/0"), "10.0.0.1"), false);
  assert.equal(contains(prefix("10.0.0.0/8"), "nonsense"), false);
});

test("networkOf() clears the bits behind the length, in a byte too", () => {
  assert.equal(networkOf(prefix("10.0.7.255/22")).address, "10.0.4.0");
  assert.equal(networkOf(prefix("2001:db8::ffff/113")).address, "2001:db8::8000");
});

test("parsePrefix() takes no length that the family does not have, and none that is written oddly", () => {
  for (const text of [
    "10.0.0.1/33",
    "::1/129",
    "10.0.0.1/",
    "10.0.0.1/08",
    "10.0.0.1/+8",
    "10.0.0.1/-1",
    "/8",
    "x/8",
  ]) {
    assert.equal(parsePrefix(text), undefined, text);
  }
  assert.deepEqual([prefix("10.0.0.1").prefixLength, prefix("::1").prefixLength], [32, 128]);
});
