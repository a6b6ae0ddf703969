import assert from "node:assert/strict";
import { test } from "node:test";
import { KernelError } from "../error.ts";
import { encodeAttributes } from "./attribute.ts";
import { encodeStruct, ifaddrmsg, nlmsghdr, rtmsg } from "./layout.ts";
import { drain } from "./watch.ts";

const RTM_NEWROUTE = 24;

test("drain() leaves the loop after some datagrams, though more are there", () => {
  const len = nlmsghdr.size + rtmsg.size;
  const route = encodeStruct(rtmsg, { family: 2, table: 254, type: 1 });
  const news = Buffer.concat([encodeStruct(nlmsghdr, { len, type: RTM_NEWROUTE }), route]);
  let left = 1000;
  const socket = { receive: () => (left-- > 0 ? news : undefined) };
  const first = drain(socket).length;
  assert.ok(first > 0 && first < 100, `${first} at once`);
  let all = first;
  for (let more = drain(socket).length; more > 0; more = drain(socket).length) all += more;
  assert.equal(all, 1000);
});

/** What is drained of these datagrams; one that is an error is thrown. */
function kindsOf(...datagrams: readonly (Buffer | Error)[]): readonly string[] {
  const left = [...datagrams];
  const receive = () => {
    const next = left.shift();
    if (next instanceof Error) throw next;
    return next;
  };
  return drain({ receive }).map(({ kind }) => kind);
}

const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
function address(type: number): Buffer {
  const body = encodeStruct(ifaddrmsg, { family: 2, prefixLength: 24, index: 7 });
  const attributes = encodeAttributes((encoder) => encoder.bytes(1, Uint8Array.of(10, 0, 0, 9))); // IFA_ADDRESS
  const len = nlmsghdr.size + body.length + attributes.length;
  return Buffer.concat([encodeStruct(nlmsghdr, { len, type }), body, attributes]);
}

test("drain() says what has come and what has gone", () => {
  assert.deepEqual(kindsOf(address(RTM_NEWADDR), address(RTM_DELADDR)), ["new-address", "gone-address"]);
});

test("drain() keeps what came before news were lost, and says that they were", () => {
  const lost = new KernelError("receive", 105); // ENOBUFS
  assert.deepEqual(kindsOf(address(RTM_NEWADDR), lost), ["new-address", "lost"]);
  assert.deepEqual(kindsOf(address(RTM_NEWADDR), address(RTM_NEWADDR).subarray(0, 20)), ["new-address", "lost"]);
  assert.throws(() => kindsOf(new TypeError("a mistake of ours")), TypeError);
});
