import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno } from "../errno.ts";
import type { NetlinkSocket } from "./conversation.ts";
import { encodeStruct, nlmsghdr, rtmsg } from "./layout.ts";
import { decodeMessages } from "./message.ts";
import { Rtnl } from "./rtnl.ts";

const RTM_GETRULE = 34;

/** A kernel booted with ipv6.disable=1: it refuses IPv6 rules, and reports its IPv4 routes whatever is requested. */
function kernelWithoutIpv6(): NetlinkSocket {
  const waiting: Buffer[] = [];
  const answer = (type: number, seq: number, body: Buffer) => {
    const len = nlmsghdr.size + body.length;
    waiting.push(Buffer.concat([encodeStruct(nlmsghdr, { len, type, seq, pid: 1 }), body]));
  };
  return {
    netlinkPort: 1,
    async sendOffThread(bytes) {
      const [request] = decodeMessages(bytes);
      assert.ok(request);
      const isRule = request.type === RTM_GETRULE;
      const end = Buffer.alloc(4);
      end.writeInt32LE(isRule && request.body.readUInt8(0) === 10 ? -Errno.EAFNOSUPPORT : 0);
      if (!isRule) answer(24, request.seq, encodeStruct(rtmsg, { family: 2, table: 254, type: 1 }));
      answer(3, request.seq, end);
    },
    receive: () => waiting.shift(),
    receiveOffThread: async () => waiting.shift(),
    close() {},
  };
}

test("Rtnl lists routes and rules of a kernel without IPv6", async () => {
  const rtnl = Rtnl.over(kernelWithoutIpv6());
  assert.deepEqual(
    (await rtnl.routes()).map((route) => [route.family, route.destination]),
    [[4, "0.0.0.0"]],
  );
  assert.deepEqual(await rtnl.rules(), []);
});

test("Rtnl.watch() watches no namespace where it was given none, not this process's own either", () => {
  const rtnl = Rtnl.over(kernelWithoutIpv6());
  assert.throws(() => rtnl.watch(["link"], () => {}), /no namespace/);
});
