import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeAttributes } from "./attribute.ts";
import { encodeStruct, nlmsghdr } from "./layout.ts";
import { decodeMessages, encodeMessage, endOf, type NetlinkMessage } from "./message.ts";

const ERROR = 2;
const OVERRUN = 4;
const DATA = 16;

/** A message as the kernel sends it, with the padding behind it; `len` is what it says of itself. */
function bytesOf(type: number, body: string, len = nlmsghdr.size + body.length): Buffer {
  const padding = Buffer.alloc(-body.length & 3);
  return Buffer.concat([encodeStruct(nlmsghdr, { len, type, seq: 7, pid: 42 }), Buffer.from(body), padding]);
}

test("decodeMessages() finds each message of a datagram behind the padding of the one before", () => {
  const messages = decodeMessages(Buffer.concat([bytesOf(DATA, "abcde"), bytesOf(DATA + 1, ""), bytesOf(DATA, "f")]));
  assert.deepEqual(
    messages.map(({ type, seq, port, body }) => [type, seq, port, String(body)]),
    [
      [DATA, 7, 42, "abcde"],
      [DATA + 1, 7, 42, ""],
      [DATA, 7, 42, "f"],
    ],
  );
  assert.deepEqual(decodeMessages(Buffer.alloc(0)), []);
});

for (const [says, bytes] of [
  ["whose header is cut short", bytesOf(DATA, "abcd").subarray(0, 12)],
  ["that says it is longer than the datagram", bytesOf(DATA, "abcd", 21)],
  ["that says it is shorter than its header", bytesOf(DATA, "abcd", 15)],
  ["that says it has no length", bytesOf(DATA, "abcd", 0)],
] as const) {
  test(`decodeMessages() refuses a message ${says}`, () => {
    const whole = bytesOf(DATA, "abcd");
    assert.throws(() => decodeMessages(Buffer.concat([whole, bytes])), /at byte 20 of \d+ is cut short/);
  });
}

test("encodeMessage() says that it is a request, whatever else is requested", () => {
  const [message] = decodeMessages(encodeMessage({ type: DATA, flags: 0x300, body: Buffer.from("ab") }, 9));
  assert.deepEqual([message?.flags, message?.seq, String(message?.body)], [0x301, 9, "ab"]);
});

const message = (type: number, flags: number, body: Buffer): NetlinkMessage => ({ type, flags, seq: 1, port: 1, body });

test("endOf() takes lost data for the end, and data for none", () => {
  assert.equal(endOf(message(OVERRUN, 0, Buffer.alloc(0)))?.errno, 105); // ENOBUFS
  assert.equal(endOf(message(DATA, 0, Buffer.alloc(4))), undefined);
});

test("endOf() reads words only where the kernel says that there are some", () => {
  const code = Buffer.alloc(4);
  code.writeInt32LE(-22);
  const words = encodeAttributes((encoder) => encoder.string(1, "what is wrong"));
  const body = Buffer.concat([code, encodeStruct(nlmsghdr, { len: 16 }), words]);
  assert.deepEqual(endOf(message(ERROR, 0x200, body)), { errno: 22, text: "what is wrong" });
  assert.deepEqual(endOf(message(ERROR, 0, body)), { errno: 22, text: undefined });
});
