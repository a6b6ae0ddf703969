import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeStruct, nlmsghdr, rtmsg } from "./layout.ts";
import { drain } from "./watch.ts";

const RTM_NEWROUTE = 24;

test("drain() leaves the loop after some datagrams, though more are there", () => {
  const len = nlmsghdr.size + rtmsg.size;
  const route = encodeStruct(rtmsg, { family: 2, table: 254, type: 1 });
  const news = Buffer.concat([encodeStruct(nlmsghdr, { len, type: RTM_NEWROUTE }), route]);
  let left = 1000;
  const socket = { receive: (into: Buffer) => (left-- > 0 ? news.copy(into) : undefined) };
  const first = drain(socket).length;
  assert.ok(first > 0 && first < 100, `${first} at once`);
  let all = first;
  for (let more = drain(socket).length; more > 0; more = drain(socket).length) all += more;
  assert.equal(all, 1000);
});
