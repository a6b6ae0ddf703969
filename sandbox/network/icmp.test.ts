import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeEchoReply, encodeEchoRequest, internetChecksum } from "./icmp.ts";

test("internetChecksum() gives the sum of the worked example in RFC 1071 §3", () => {
  assert.equal(internetChecksum(Buffer.from("0001f203f4f5f6f7", "hex")), 0x220d);
});

test("encodeEchoRequest() of version 4 carries a checksum that sums to zero", () => {
  const packet = encodeEchoRequest(4, { id: 0x1234, sequence: 7 });
  assert.equal(packet[0], 8);
  assert.equal(internetChecksum(packet), 0);
});

test("decodeEchoReply() skips the IP header of version 4", () => {
  const icmp = encodeEchoRequest(4, { id: 9, sequence: 3 });
  icmp[0] = 0;
  const header = Buffer.alloc(24);
  header[0] = 0x46; // version 4, six words: with options
  assert.deepEqual(decodeEchoReply(4, Buffer.concat([header, icmp])), { id: 9, sequence: 3 });
});

test("decodeEchoReply() knows nothing but echo replies", () => {
  assert.equal(decodeEchoReply(6, encodeEchoRequest(6, { id: 1, sequence: 1 })), undefined);
  assert.equal(decodeEchoReply(4, Buffer.from([0x45])), undefined);
  assert.equal(decodeEchoReply(4, Buffer.alloc(0)), undefined);
});
