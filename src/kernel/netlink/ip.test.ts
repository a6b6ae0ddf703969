import assert from "node:assert/strict";
import { test } from "node:test";
import { ipFromBytes, ipToBytes } from "./ip.ts";

const same = [
  ["10.0.0.1", "10.0.0.1"],
  ["255.255.255.255", "255.255.255.255"],
  ["::", "::"],
  ["::1", "::1"],
  ["2001:DB8:0:0:0:0:0:1", "2001:db8::1"],
  ["2001:db8::", "2001:db8::"],
  ["1:0:0:2:0:0:0:3", "1:0:0:2::3"],
  ["1:0:0:2:0:0:3:4", "1::2:0:0:3:4"],
  ["1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"],
  ["::ffff:10.0.0.1", "::ffff:10.0.0.1"],
  ["64:ff9b::10.0.0.1", "64:ff9b::a00:1"],
] as const;
for (const [text, canonical] of same) {
  test(`ipToBytes() reads ${text}, ipFromBytes() writes ${canonical}`, () => {
    const bytes = ipToBytes(text);
    assert.ok(bytes);
    assert.equal(ipFromBytes(bytes), canonical);
  });
}

const wrong = ["", "1", "1.2.3", "1.2.3.4.5", "256.0.0.1", "01.2.3.4", "1.2.3.4 ", "1.2.3.-4", ":", ":::", "1::2::3"];
const wrong6 = [
  "1:2:3:4:5:6:7",
  "1:2:3:4:5:6:7:8:9",
  "::1:2:3:4:5:6:7:8",
  "12345::",
  "g::",
  "fe80::1%eth0",
  "1.2.3.4::",
  "::1.2.3.4:5",
];
for (const text of [...wrong, ...wrong6]) {
  test(`ipToBytes() refuses "${text}"`, () => assert.equal(ipToBytes(text), undefined));
}
